"""A set of positions, as few disjoint ranges as there can be. Pure."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from s3torchconnector._transfer.engine._ranges import Range


class Spans:
    """Ranges, joined if they touch or overlap.

    Attributes:
        total: how many positions there are.
    """

    __slots__ = ("_starts", "_stops", "total")

    def __init__(self) -> None:
        self._starts = array("q")
        self._stops = array("q")
        self.total = 0

    def __iter__(self) -> Iterator[Range]:
        return map(Range, self._starts, self._stops)

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, start: int, stop: int) -> int:
        """Add the positions from ``start`` up to ``stop``; return how many of them are new."""
        stops = self._stops
        if stops and start == stops[-1] < stop:  # in order, as nearly always
            stops[-1] = stop
            self.total += stop - start
            return stop - start
        if stop <= start:
            return 0
        first = bisect_left(stops, start)
        last = bisect_right(self._starts, stop)  # those from first to last touch the new range
        before = sum(map(int.__sub__, stops[first:last], self._starts[first:last]))
        if first < last:
            start, stop = min(start, self._starts[first]), max(stop, stops[last - 1])
        self._starts[first:last] = array("q", (start,))
        stops[first:last] = array("q", (stop,))
        added = stop - start - before
        self.total += added
        return added
