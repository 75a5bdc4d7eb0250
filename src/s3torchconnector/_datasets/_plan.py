"""Which samples a process of a job makes, in which order: the order of an epoch, dealt to ranks and workers. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from s3torchconnector._datasets._deal import Deal
from s3torchconnector._datasets._order import AnyOrder

_AT_A_TIME = 1024  # positions: then a sample costs a third of a microsecond, and the first ones half a millisecond

Sizes = Callable[[Sequence[int]], list[int]]
"""The sizes of samples, in bytes."""


@dataclass(frozen=True)
class Plan:
    """A pass as one rank sees it.

    Attributes:
        deal: who gets which positions.
        rank: whose pass it is.
        order: of the epoch.
    """

    deal: Deal
    rank: int
    order: AnyOrder

    def samples(self, worker: int = 0, workers: int = 1, first: int = 0) -> Iterator[int]:
        """The samples of a worker's batches, from its ``first``-th on, in turn."""
        for positions in _gathered(self.deal.of_worker(self.rank, worker, workers, first)):
            yield from self.order.samples_at(positions).tolist()

    def positions(self, batch: int, rank: int | None = None) -> list[int]:
        """The positions of a batch of this rank, or of another one, in the order of its samples.

        Raises:
            IndexError: the rank has no such batch.
        """
        return [each for part in self.deal.positions(self.rank if rank is None else rank, batch) for each in part]

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
        plan = replace(self, deal=deal)
        return [self.order.sample_at(position) for each in found for position in plan.positions(step, each)]


def _gathered(batches: Iterable[list[range]]) -> Iterator[torch.Tensor]:
    """The positions of batches, many of them in a tensor."""
    gathered: list[int] = []
    for batch in batches:
        for part in batch:
            gathered += part
        if len(gathered) >= _AT_A_TIME:
            yield torch.tensor(gathered)
            gathered = []
    if gathered:
        yield torch.tensor(gathered)
