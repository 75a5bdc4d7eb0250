"""Several sources in one order, by weight: finds the source and the sample of each position. Pure.

All epochs of a mix are one sequence of positions, cut into blocks of 1,000. Each block has a fixed number of samples of
each source, its *quota*, in an order that is a hash of (seed, block). So the n-th sample of a source is found by
counting: the quota of each earlier block, and the earlier samples in its own block. When an epoch of the mix ends, a
source continues where it was. It begins its own next epoch, with another order, when all of its samples have been seen.
There is no state from sample to sample.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from hashlib import blake2b
from typing import TypeVar

import torch

from s3torchconnector._datasets import _order
from s3torchconnector._datasets._order import Order, sorted_by_hash

NAME = f"mix-1 {_order.NAME}"
"""What a saved state calls this order."""

BLOCK = 1000  # positions
MOST_SAMPLES = 2**32  # of an epoch
_KEPT = 4  # blocks and orders

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


def quotas(weights: Sequence[float]) -> list[int]:
    """How many of the 1,000 positions of a block belong to each source.

    The exact shares are rounded so that they add up (largest remainders). A source with a positive weight has at least
    one position. It is taken from the source that exceeds its share the most.

    Raises:
        ValueError: a weight is negative or not finite, all are zero, or more than 1,000 are positive.
    """
    if any(not 0 <= weight < float("inf") for weight in weights):
        raise ValueError("a weight is a finite number that is not negative")
    total = sum(map(Fraction, weights))
    positive = [number for number, weight in enumerate(weights) if weight]
    if not 0 < len(positive) <= BLOCK:
        raise ValueError(f"from 1 to {BLOCK} sources must have positive weights: {len(positive)} have")
    shares = [Fraction(weight) * BLOCK / total for weight in weights]
    found = [max(int(share), 1) if share else 0 for share in shares]
    while sum(found) < BLOCK:
        found[max(positive, key=lambda number: shares[number] - found[number])] += 1
    while sum(found) > BLOCK:
        several = [number for number in positive if found[number] > 1]
        found[min(several, key=lambda number: shares[number] - found[number])] -= 1
    return found


@dataclass(frozen=True)
class Source:
    """One of the sources.

    Attributes:
        samples: how many it has.
        quota: how many positions of a block it has.
        seed, shuffle: of its own epochs, see ``Order``.
    """

    samples: int
    quota: int
    seed: int
    shuffle: bool


class MixedOrder:
    """One epoch of a mix. Samples are numbered from source to source.

    Args:
        sources: what is mixed.
        seed: decides the order of sources in each block.
        epoch: of the mix.
        samples: positions of an epoch.
    """

    def __init__(self, sources: Sequence[Source], seed: int, epoch: int, samples: int) -> None:
        self.seed, self.epoch, self.samples = seed, epoch, samples
        self._sources = sources
        self._quotas = torch.tensor([source.quota for source in sources])
        # Without ``repeat_interleave``, which uses threads for any number: they hang in forked children.
        self._in_turn = torch.tensor([i for i, source in enumerate(sources) for _ in range(source.quota)])
        self._before = torch.tensor([i for source in sources for i in range(source.quota)])
        self._firsts = [sum(source.samples for source in sources[:number]) for number in range(len(sources))]
        self._blocks: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._orders: dict[tuple[int, int], Order] = {}

    def sample_at(self, position: int) -> int:
        """The sample at a position.

        Raises:
            IndexError: there is no such position.
        """
        if not 0 <= position < self.samples:
            raise IndexError(f"{position} is out of range for an epoch of {self.samples} samples")
        return int(self.samples_at(torch.tensor([position])))

    def samples_at(self, positions: torch.Tensor) -> torch.Tensor:
        """The samples at many positions (int64, each of them one of the epoch's), in a new tensor."""
        positions = positions + self.epoch * self.samples
        result = torch.empty_like(positions)
        sources, ordinals = self._counted(positions)
        for number in _distinct(sources):
            here = (sources == number).nonzero().flatten()
            result[here] = self._of_source(number, ordinals[here]) + self._firsts[number]
        return result

    def _counted(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The sources at positions of the whole sequence, and how many samples of theirs come before."""
        sources, ordinals = torch.empty_like(positions), torch.empty_like(positions)
        blocks = positions // BLOCK
        for block in _distinct(blocks):
            here = (blocks == block).nonzero().flatten()
            slots = positions[here] - block * BLOCK
            of_block, before = _kept(self._blocks, block, self._block)
            sources[here] = of_block[slots]
            ordinals[here] = before[slots] + block * self._quotas[of_block[slots]]
        return sources, ordinals

    def _block(self, block: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The sources at the positions of a block, and how many of the same source come before in it."""
        digest = blake2b(struct.pack("<QQ", self.seed, block), key=b"s3torchconnector mix", digest_size=16).digest()
        sources = self._in_turn[sorted_by_hash(BLOCK, *struct.unpack("<QQ", digest))]
        before = torch.empty_like(sources)
        before[torch.argsort(sources, stable=True)] = self._before
        return sources, before

    def _of_source(self, number: int, ordinals: torch.Tensor) -> torch.Tensor:
        """The samples of a source that come after so many, through its own epochs."""
        source = self._sources[number]
        epochs, positions = ordinals // source.samples, ordinals % source.samples
        if not source.shuffle:
            return positions
        result = torch.empty_like(positions)
        for epoch in _distinct(epochs):
            here = (epochs == epoch).nonzero().flatten()
            result[here] = _kept(self._orders, (number, epoch), self._order).samples_at(positions[here])
        return result

    def _order(self, key: tuple[int, int]) -> Order:
        number, epoch = key
        source = self._sources[number]
        return Order(source.seed, epoch, source.samples)


def seed_of_source(seed: int, source_seed: int, name: str) -> int:
    """The seed of a source's own orders: another one for each seed of the mix, of the source, and name."""
    data = struct.pack("<QQ", seed, source_seed) + name.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(data, key=b"s3torchconnector source", digest_size=8).digest(), "little")


def _distinct(numbers: torch.Tensor) -> list[int]:
    return sorted(set(numbers.tolist()))


def _kept(known: dict[_K, _V], key: _K, make: Callable[[_K], _V]) -> _V:
    """The value of ``key``, made now if it is not kept; only the latest few are kept."""
    if key not in known:
        while len(known) >= _KEPT:
            known.pop(next(iter(known)), None)
        known[key] = make(key)
    return known[key]
