"""Counters of the workers of a dataset, in shared memory: each worker adds to its own row."""

from __future__ import annotations

from collections.abc import Sequence

from s3torchconnector._datasets._worker import MOST_WORKERS, worker_slot
from s3torchconnector._mapped_bytes import SharedNumbers

FIELDS = ("samples", "bytes", "transform_ns", "errors", "replaced", "requests", "retries", "cache_hits")
_EPOCH, _PARTS = 0, 1  # in a row: the epoch of the worker's latest pass; then for each part the fields, and its errors
_ERRORS, _OF_PART = len(FIELDS), len(FIELDS) + 1


class Counters:
    """Totals of a dataset, over all its passes and workers.

    Args:
        parts: how many a dataset has; each is counted by itself.
    """

    def __init__(self, parts: int = 1) -> None:
        self._parts = parts
        self._row = _PARTS + _OF_PART * parts
        self._shared = SharedNumbers.zeros(self._row * (MOST_WORKERS + 1))

    def add(self, part: int, numbers: Sequence[int]) -> None:
        """Add what this process has done since it added last, in the order of ``FIELDS``."""
        shared, at = self._shared.numbers, self._row * worker_slot() + _PARTS + _OF_PART * part
        for field, number in enumerate(numbers, at):
            if number:
                shared[field] += number

    def begin_epoch(self, epoch: int) -> None:
        """This process begins a pass: its error count is reset."""
        shared, row = self._shared.numbers, self._row * worker_slot()
        shared[row + _EPOCH] = epoch
        for part in range(self._parts):
            shared[row + _PARTS + _OF_PART * part + _ERRORS] = 0

    def note_error(self, part: int, epoch: int) -> int:
        """Count an error of this process in its pass. Returns how many all workers have had in this epoch."""
        shared, errors = self._shared.numbers, _PARTS + _OF_PART * part + _ERRORS
        shared[self._row * worker_slot() + errors] += 1
        rows = range(0, len(shared), self._row)
        return sum(shared[row + errors] for row in rows if shared[row + _EPOCH] == epoch)

    def totals(self, part: int) -> dict[str, int]:
        """What all workers have added for a part, by field."""
        shared, at = self._shared.numbers, _PARTS + _OF_PART * part
        return {name: sum(shared[field :: self._row]) for field, name in enumerate(FIELDS, at)}


class Tally:
    """What this process has done since it added to the counters: a store in shared memory for each sample would cost
    more than all other work on it.

    Attributes: the first ones of ``FIELDS``.
    """

    def __init__(self) -> None:
        self.samples = self.bytes = self.transform_ns = self.errors = self.replaced = 0

    def take(self) -> list[int]:
        """The numbers, in the order of ``FIELDS``; they are reset to zero."""
        numbers = [self.samples, self.bytes, self.transform_ns, self.errors, self.replaced]
        self.samples = self.bytes = self.transform_ns = self.errors = self.replaced = 0
        return numbers
