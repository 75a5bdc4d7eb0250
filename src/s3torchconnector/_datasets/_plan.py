"""The samples that one process of a job makes, in order: the order of an epoch, dealt to ranks and workers. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from s3torchconnector._datasets._balance import group_of, shares
from s3torchconnector._datasets._deal import Deal
from s3torchconnector._datasets._order import AnyOrder

_AT_A_TIME = 1024  # positions: then a sample costs a third of a microsecond, and the first ones half a millisecond
_MOST = 2048  # positions in one tensor: from 3,000 on, PyTorch uses threads to index, which hang in forked children

Sizes = Callable[[Sequence[int]], list[int]]
"""The sizes of samples, in bytes."""


class _Share(NamedTuple):
    """What a rank gets of a step."""

    positions: Sequence[int]
    samples: Sequence[int]


@dataclass(frozen=True)
class Plan:
    """A pass as one rank sees it.

    Attributes:
        deal: who gets which positions.
        rank: whose pass it is.
        order: of the epoch.
        sizes: tells the sizes by which the samples of each step are dealt to ranks (``_balance``); None deals them in
            their order.
    """

    deal: Deal
    rank: int
    order: AnyOrder
    sizes: Sizes | None = None

    def samples(self, worker: int = 0, workers: int = 1, first: int = 0) -> Iterator[int]:
        """The samples of a worker's batches, from its ``first``-th on, in order."""
        if self.sizes is not None:
            for batch in range(worker + first * workers, self.deal.batches(self.rank), workers):
                yield from self._share(batch, self.rank).samples
            return
        for positions in _gathered(self.deal.of_worker(self.rank, worker, workers, first)):
            yield from self.order.samples_at(positions).tolist()

    def positions(self, batch: int) -> Sequence[int]:
        """The positions of a batch of this rank, in the order of its samples.

        Raises:
            IndexError: the rank has no such batch.
        """
        if not 0 <= batch < self.deal.batches(self.rank):
            raise IndexError(f"batch {batch} is out of range: rank {self.rank} has {self.deal.batches(self.rank)}")
        return self._share(batch, self.rank).positions

    def samples_of_step(self, step: int, rank: int | None = None) -> list[int]:
        """The samples of a step, counted from the beginning of the epoch; of all ranks in turn, or of one.

        Raises:
            IndexError: the epoch has no such step.
        """
        deal = self.deal
        before = -(-deal.start // deal.global_batch)  # steps of this size that lie before the pass
        if step >= before:
            step -= before
        else:
            deal = replace(deal, start=0)
        ranks = range(deal.replicas) if rank is None else [rank]
        found = [each for each in ranks if step < deal.batches(each)]
        if not found or step < 0:
            raise IndexError(f"the epoch has no step {step}")
        plan, known = replace(self, deal=deal), dict[int, _Share]()
        for each in found:
            if each not in known:
                known.update(plan._shares(step, each))
        return [sample for each in found for sample in known[each].samples]

    def _share(self, batch: int, rank: int) -> _Share:
        return self._shares(batch, rank)[rank]

    def _shares(self, batch: int, rank: int) -> dict[int, _Share]:
        """The samples of a step for this rank, and for the ranks to which samples are dealt together with it."""
        deal = self.deal
        group = [rank] if self.sizes is None else group_of(rank, deal.replicas)
        places = {each: deal.positions(each, batch) for each in group if batch < deal.batches(each)}
        positions = [position for parts in places.values() for part in parts for position in part]
        samples = self._samples_at(positions)
        counts = [sum(map(len, parts)) for parts in places.values()]
        dealt = [range(len(samples))] if self.sizes is None else shares(self.sizes(samples), counts)
        return {
            each: _Share([positions[i] for i in share], [samples[i] for i in share])
            for each, share in zip(places, dealt, strict=True)
        }

    def _samples_at(self, positions: list[int]) -> list[int]:
        return [sample for part in _tensors(positions) for sample in self.order.samples_at(part).tolist()]


def _gathered(batches: Iterable[list[range]]) -> Iterator[torch.Tensor]:
    """The positions of batches, many of them in a tensor."""
    gathered: list[int] = []
    for batch in batches:
        for part in batch:
            gathered += part
        if len(gathered) >= _AT_A_TIME:
            yield from _tensors(gathered)
            gathered = []
    yield from _tensors(gathered)


def _tensors(positions: list[int]) -> Iterator[torch.Tensor]:
    """Positions in tensors that are not too large."""
    return (torch.tensor(positions[i : i + _MOST]) for i in range(0, len(positions), _MOST))
