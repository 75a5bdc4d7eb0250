"""How often a cache was asked, and had what was asked for, in memory that the processes of one ``S3Cache`` share."""

from __future__ import annotations

import os

from s3torchconnector._mapped_bytes import SharedNumbers

FIELDS = ("hits", "misses", "hit_bytes")
_ROW = len(FIELDS)
_ROWS = 4093  # a prime: two processes that live at a time rarely have the same row, and then may lose a count


class CacheTally:
    """Counts of one cache, in all processes that it was forked or sent to."""

    def __init__(self) -> None:
        self._shared = SharedNumbers.zeros(_ROW * _ROWS)

    def hit(self, size: int, count: int = 1) -> None:
        """A look-up has found so many bytes; with ``count=-1`` it has not, after all."""
        numbers, row = self._shared.numbers, _ROW * (os.getpid() % _ROWS)
        numbers[row] += count
        numbers[row + 2] += count * size

    def miss(self) -> None:
        """A look-up has found nothing."""
        self._shared.numbers[_ROW * (os.getpid() % _ROWS) + 1] += 1

    def totals(self) -> dict[str, int]:
        """The counts of all processes, by field."""
        return {name: sum(self._shared.numbers[field::_ROW]) for field, name in enumerate(FIELDS)}
