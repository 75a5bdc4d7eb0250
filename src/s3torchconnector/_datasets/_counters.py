"""What the workers of a dataset have done, in shared memory: each adds to a row of its own."""

from __future__ import annotations

from s3torchconnector._datasets._mapped_bytes import SharedNumbers
from s3torchconnector._datasets._worker import MOST_WORKERS, worker_slot

FIELDS = ("samples", "bytes", "transform_ns", "errors", "replaced")
_EPOCH, _ERRORS = len(FIELDS), len(FIELDS) + 1  # of the latest pass of the worker: which one, and its errors
_ROW = len(FIELDS) + 2


class Counters:
    """Totals of a dataset, over all its passes and workers."""

    def __init__(self) -> None:
        self._shared = SharedNumbers.zeros(_ROW * (MOST_WORKERS + 1))

    def add(self, tally: Tally) -> None:
        """Add what this process has done since it added last."""
        numbers, row = self._shared.numbers, _ROW * worker_slot()
        for field, number in enumerate(tally.take(), row):
            numbers[field] += number

    def begin_epoch(self, epoch: int) -> None:
        """This process begins a pass: errors count anew."""
        numbers, row = self._shared.numbers, _ROW * worker_slot()
        numbers[row + _EPOCH], numbers[row + _ERRORS] = epoch, 0

    def note_error(self, epoch: int) -> int:
        """Count an error of this process in its pass. Returns how many all workers have had in this epoch."""
        numbers = self._shared.numbers
        numbers[_ROW * worker_slot() + _ERRORS] += 1
        rows = range(0, len(numbers), _ROW)
        return sum(numbers[row + _ERRORS] for row in rows if numbers[row + _EPOCH] == epoch)

    def totals(self) -> dict[str, int]:
        """What all workers have added, by field."""
        numbers = self._shared.numbers
        return {name: sum(numbers[field::_ROW]) for field, name in enumerate(FIELDS)}


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
