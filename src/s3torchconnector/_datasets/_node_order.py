"""An order in which each node sees the same samples in every epoch, so that a cache on its disk has them. Pure.

The samples are dealt to *canonical nodes* once and for all: sample i belongs to node i mod C. Position p of an epoch
belongs to node p mod C, and each node permutes its own samples: position p is the (p // C)-th of its node's order. So
any C positions in a row are of all nodes, a prefix of the epoch is one of each node's order, and the state of a job is
still one number. ``Deal`` gives the positions of a canonical node to the ranks of one node.
"""

from __future__ import annotations

import struct
from hashlib import blake2b

import torch

from s3torchconnector._datasets import _order
from s3torchconnector._datasets._order import Order


def name_of(nodes: int) -> str:
    """What a saved state calls this order."""
    return f"{_order.NAME} on {nodes} nodes"


class NodeOrder:
    """A permutation of the samples that keeps those of each canonical node on its positions.

    Args:
        seed, epoch, samples, shuffle: see ``Order``.
        nodes: how many canonical nodes there are.
    """

    def __init__(self, seed: int, epoch: int, samples: int, nodes: int, *, shuffle: bool = True) -> None:
        self.seed, self.epoch, self.samples = seed, epoch, samples
        self._nodes = nodes
        self._shuffle = shuffle
        self._orders: dict[int, Order] = {}

    def sample_at(self, position: int) -> int:
        """The sample at a position.

        Raises:
            IndexError: there is no such position.
        """
        if not 0 <= position < self.samples:
            raise IndexError(f"{position} is out of range for an epoch of {self.samples} samples")
        turn, node = divmod(position, self._nodes)
        return node + self._nodes * self._order(node).sample_at(turn)

    def samples_at(self, positions: torch.Tensor) -> torch.Tensor:
        """The samples at many positions (int64, each of them one of the epoch's), in a new tensor."""
        nodes, turns = positions % self._nodes, positions // self._nodes
        result = torch.empty_like(positions)
        for node in sorted(set(nodes.tolist())):
            here = (nodes == node).nonzero().flatten()
            result[here] = node + self._nodes * self._order(node).samples_at(turns[here])
        return result

    def _order(self, node: int) -> Order:
        """The order of one node's samples. It is unrelated to the orders of other nodes; otherwise neighbours would
        always be in the same step.
        """
        if node not in self._orders:
            data = struct.pack("<QQ", self.seed, node)
            digest = blake2b(data, key=b"s3torchconnector node", digest_size=8).digest()
            samples = len(range(node, self.samples, self._nodes))
            seed = int.from_bytes(digest, "little")
            self._orders[node] = Order(seed, self.epoch, samples, shuffle=self._shuffle)
        return self._orders[node]
