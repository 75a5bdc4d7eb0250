"""Which positions of an epoch belong to which rank, batch and worker. Pure arithmetic.

A pass deals the positions from ``start`` on: global batch t has the next ``replicas * batch_size`` of them, and rank r
the r-th ``batch_size`` of these. A DataLoader's worker w of W makes the batches t for which ``t % W == w``, which is
the order in which the loader asks its workers. So after T batches, the samples that were handed out are a prefix of the
epoch, for any number of ranks and workers and any batch size.

With canonical nodes (``_node_order``), the positions of a global batch are dealt in the order of their nodes instead:
first all of node 0, then those of node 1. Ranks are numbered from node to node, so those of one node get the same
canonical nodes at each step, if the global batch is a multiple of them and they are one of the nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Tail = Literal["drop", "even", "uneven"]
"""What happens to samples that do not fill a global batch: they are left out; dealt so that all ranks get the same
number, by repeating fewer of the epoch's first samples than there are ranks; or dealt as they are."""


@dataclass(frozen=True)
class Deal:
    """The positions of one pass, by rank and batch.

    Attributes:
        samples: of an epoch.
        replicas: how many ranks read different samples.
        batch_size: samples of a batch of one rank.
        tail: see ``Tail``.
        start: the position at which the pass begins.
        nodes: canonical nodes.
    """

    samples: int
    replicas: int
    batch_size: int
    tail: Tail
    start: int = 0
    nodes: int = 1

    @property
    def global_batch(self) -> int:
        """Samples of a batch of all ranks together."""
        return self.replicas * self.batch_size

    @property
    def full_batches(self) -> int:
        """Batches from which each rank gets ``batch_size`` samples."""
        return max(0, self.samples - self.start) // self.global_batch

    def batches(self, rank: int) -> int:
        """How many batches a rank gets."""
        return self.full_batches + (self._tail_size(rank) > 0)

    def samples_of(self, rank: int) -> int:
        """How many samples a rank gets."""
        return self.full_batches * self.batch_size + self._tail_size(rank)

    def positions(self, rank: int, batch: int) -> list[range]:
        """The positions of a rank's batch, in order. What pads the last one, and canonical nodes, need several ranges.

        Raises:
            IndexError: the rank has no such batch.
        """
        if not 0 <= batch < self.batches(rank):
            raise IndexError(f"batch {batch} is out of range: rank {rank} has {self.batches(rank)}")
        if batch < self.full_batches:
            return self._of_full(self.start + batch * self.global_batch, rank)
        tail = self.start + self.full_batches * self.global_batch
        first = tail + sum(map(self._tail_size, range(rank))) if self.tail == "uneven" else (
            tail + rank * self._tail_size(rank)
        )  # fmt: skip
        return _wrapped(first, self._tail_size(rank), self.samples)

    def of_worker(self, rank: int, worker: int, workers: int, first: int = 0) -> Iterator[list[range]]:
        """The batches that one worker of a rank makes, from its ``first``-th on."""
        full, stride = self.full_batches, self.global_batch
        for batch in range(worker + first * workers, self.batches(rank), workers):
            at = self.start + batch * stride
            yield self._of_full(at, rank) if batch < full else self.positions(rank, batch)

    def position_after(self, batches: int) -> int:
        """The position at which the next pass goes on after so many batches; ``samples`` after all of them."""
        if batches >= self.batches(0):  # no rank has more
            return self.samples
        return self.start + batches * self.global_batch

    def _of_full(self, start: int, rank: int) -> list[range]:
        """What a rank gets of the global batch that begins at ``start``."""
        before, wanted = rank * self.batch_size, self.batch_size
        if self.nodes == 1:
            return [range(start + before, start + before + wanted)]
        found: list[range] = []
        for node in range(self.nodes):
            of_node = range(start + (node - start) % self.nodes, start + self.global_batch, self.nodes)
            share = of_node[before : before + wanted]
            before = max(0, before - len(of_node))
            if share:
                found.append(share)
                wanted -= len(share)
        return found

    def _tail_size(self, rank: int) -> int:
        left = max(0, self.samples - self.start) % self.global_batch
        if self.tail == "drop":
            return 0
        if self.tail == "even":
            return -(-left // self.replicas)
        return left // self.replicas + (rank < left % self.replicas)


def _wrapped(first: int, count: int, samples: int) -> list[range]:
    """``count`` positions from ``first`` on; the epoch's first position follows its last."""
    ranges = []
    while count:
        first %= samples
        here = range(first, min(first + count, samples))
        ranges.append(here)
        first, count = here.stop, count - len(here)
    return ranges
