"""The parts of one object that are here or on their way: disjoint, by position. No I/O."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from operator import attrgetter

from s3torchconnector._transfer._part import Part
from s3torchconnector._transfer._ranges import Range

_MOST_BEHIND = 8  # small parts kept for reads that go back a little (zip directories, parquet footers)


class Shelf:
    """A reader's parts, sorted."""

    def __init__(self) -> None:
        self._parts: list[Part] = []

    def __iter__(self) -> Iterator[Part]:
        return iter(list(self._parts))

    def __bool__(self) -> bool:
        return bool(self._parts)

    def add(self, part: Part) -> None:
        """Put a part in its place; it must not overlap another."""
        insort(self._parts, part, key=_start)

    def remove(self, part: Part) -> None:
        """Take off a part whose bytes are elsewhere."""
        self._parts.remove(part)

    def discard(self, part: Part) -> None:
        """Discard a part whose bytes are not wanted any more."""
        self._discard([part])

    def discard_lapsed(self) -> None:
        """Discard the parts that will not come, and may be asked for again."""
        self._discard([part for part in self._parts if part.lapsed])

    def discard_missing(self) -> None:
        """Discard the parts whose bytes are not here: failed, under way, or in the memory of a read."""
        self._discard([part for part in self._parts if not part.landed or part.elsewhere])

    def at(self, position: int) -> Part | None:
        """The part that has the byte at ``position``."""
        index = bisect_right(self._parts, position, key=_start) - 1
        return self._parts[index] if index >= 0 and position < self._parts[index].stop else None

    def overlapping(self, start: int, stop: int) -> list[Part]:
        """The parts that have bytes of ``start`` to ``stop``, in order."""
        return self._parts[bisect_right(self._parts, start, key=_stop) : bisect_left(self._parts, stop, key=_start)]

    def gaps(self, start: int, stop: int) -> list[Range]:
        """What no part has of ``start`` to ``stop``, in order."""
        gaps = []
        for part in self.overlapping(start, stop):
            if part.start > start:
                gaps.append(Range(start, part.start))
            start = part.stop
        if start < stop:
            gaps.append(Range(start, stop))
        return gaps

    def next_start(self, position: int, default: int) -> int:
        """Where the first part begins that begins at ``position`` or later, but no later than ``default``."""
        index = bisect_left(self._parts, position, key=_start)
        return min(default, self._parts[index].start) if index < len(self._parts) else default

    def previous_stop(self, position: int, default: int) -> int:
        """Where the last part ends that ends at ``position`` or earlier, but no earlier than ``default``."""
        index = bisect_right(self._parts, position, key=_stop) - 1
        return max(default, self._parts[index].stop) if index >= 0 else default

    def discard_passed(self, position: int, large: int) -> None:
        """Discard what lies behind ``position``: parts of ``large`` bytes and more; of small ones, the latest stay."""
        behind = self._parts[: bisect_right(self._parts, position, key=_stop)]
        self._discard([part for part in behind if part.stop - part.start >= large] or behind[:-_MOST_BEHIND])

    def discard_all(self) -> None:
        """Discard everything."""
        if self._parts:
            self._discard(list(self._parts))

    def _discard(self, parts: list[Part]) -> None:
        for part in parts:
            self._parts.remove(part)
        for part in parts:
            part.discard()


_start = attrgetter("start")
_stop = attrgetter("stop")
