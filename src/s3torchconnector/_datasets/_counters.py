"""What the workers of a dataset have done, in shared memory: each adds to a row of its own."""

from __future__ import annotations

from typing import Any

import torch

from s3torchconnector._datasets._epochs import shared
from s3torchconnector._datasets._worker import MOST_WORKERS, worker_slot

FIELDS = ("samples", "bytes", "transform_ns", "errors", "replaced")
_EPOCH, _ERRORS = len(FIELDS), len(FIELDS) + 1  # of the latest pass of the worker: which one, and its errors


class Counters:
    """Totals of a dataset, over all its passes and workers."""

    def __init__(self) -> None:
        self._block = shared(torch.zeros(MOST_WORKERS + 1, len(FIELDS) + 2, dtype=torch.int64))

    def add(self, tally: Tally) -> None:
        """Add what this process has done since it added last."""
        row = self._block[worker_slot()]
        row[: len(FIELDS)] += torch.tensor(tally.take())

    def begin_epoch(self, epoch: int) -> None:
        """This process begins a pass: errors count anew."""
        self._block[worker_slot(), _EPOCH:] = torch.tensor([epoch, 0])

    def note_error(self, epoch: int) -> int:
        """Count an error of this process in its pass. Returns how many all workers have had in this epoch."""
        self._block[worker_slot(), _ERRORS] += 1
        return int(self._block[self._block[:, _EPOCH] == epoch][:, _ERRORS].sum())

    def totals(self) -> dict[str, int]:
        """What all workers have added, by field."""
        sums: list[int] = self._block[:, : len(FIELDS)].sum(0).tolist()
        return dict(zip(FIELDS, sums, strict=True))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._block = shared(self._block)


class Tally:
    """What this process has done since it added to the counters: a store in shared memory for each sample would cost
    more than all other work on it.

    Attributes: those of ``FIELDS``.
    """

    def __init__(self) -> None:
        self.samples = self.bytes = self.transform_ns = self.errors = self.replaced = 0

    def take(self) -> list[int]:
        """The numbers, in the order of ``FIELDS``; they begin anew at zero."""
        numbers = [self.samples, self.bytes, self.transform_ns, self.errors, self.replaced]
        self.samples = self.bytes = self.transform_ns = self.errors = self.replaced = 0
        return numbers
