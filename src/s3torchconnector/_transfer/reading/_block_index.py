"""The parts of one object that are here or on their way: disjoint, by position. No I/O."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from operator import attrgetter

from s3torchconnector._transfer.engine._budget import ByteBudget
from s3torchconnector._transfer.engine._ranges import Range
from s3torchconnector._transfer.reading._block import Block

# Parts kept of what was read, for reads that come back: directories of zip files, footers of parquet files, and members
# or pages that share a part.
_MOST_READ = 256


class BlockIndex:
    """A reader's parts, sorted; for the budget, the holder of their memory.

    Attributes:
        used: when the reader was last at work, by ``time.monotonic``; infinite while it is.
        wanted: where the reader is, and what it is expected to read next: the rest can be fetched again.
        lost: bytes that were given back unread since the reader has read so many: it does the same to others only when
            it has read what it lost. Many that take turns would fetch all for each other's sake, again and again.
    """

    def __init__(self, budget: ByteBudget) -> None:
        self.used = math.inf
        self.wanted: tuple[int, float] = 0, math.inf
        self.lost = 0
        self._budget = budget
        self._parts: list[Block] = []
        self._asked = 0  # parts so far
        self._grown = False  # since it was last tidied

    def __iter__(self) -> Iterator[Block]:
        return iter(list(self._parts))

    def __bool__(self) -> bool:
        return bool(self._parts)

    def add(self, part: Block) -> None:
        """Put a part in its place; it must not overlap another."""
        if not self._parts:
            self._budget.add_holder(self)
        self._asked += 1
        part.age, self._grown = self._asked, True
        insort(self._parts, part, key=_start)

    def remove(self, part: Block) -> None:
        """Take off a part whose bytes are elsewhere."""
        self._parts.remove(part)

    def discard(self, part: Block) -> None:
        """Discard a part whose bytes are not wanted any more."""
        self._discard([part])

    def discard_lapsed(self) -> None:
        """Discard the parts that will not come, and may be asked for again."""
        self._discard([part for part in self._parts if not part.ready and part.lapsed])

    def discard_missing(self) -> None:
        """Discard the parts whose bytes are not here: failed, under way, or in the memory of a read."""
        self._discard([part for part in self._parts if not part.ready or part.elsewhere])

    def at(self, position: int) -> Block | None:
        """The part that has the byte at ``position``."""
        index = bisect_right(self._parts, position, key=_start) - 1
        return self._parts[index] if index >= 0 and position < self._parts[index].stop else None

    def overlapping(self, start: int, stop: int) -> list[Block]:
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

    def tidy(self, position: int, large: int) -> None:
        """Discard parts of ``large`` bytes and more that lie before ``position``, and of what was read the oldest.

        Does nothing where nothing has been added: this is called for each read.
        """
        if self._grown:
            self._grown = False
            behind = self._parts[: bisect_right(self._parts, position, key=_stop)]
            self._discard([part for part in behind if part.stop - part.start >= large])
            self._discard(self._too_many([part for part in self._parts if part.ready and self._is_read(part)]))

    def _too_many(self, read: list[Block]) -> list[Block]:
        most, count, size = self._budget.limit // 2, len(read), sum(part.stop - part.start for part in read)
        if count <= _MOST_READ and size <= most:
            return []
        read.sort(key=_age)
        keep = 0
        while read[keep:] and (count - keep > _MOST_READ // 2 or size > most // 2):
            size -= read[keep].stop - read[keep].start
            keep += 1
        return read[:keep]

    def _is_read(self, part: Block) -> bool:
        """Whether it was read, or lies where the reader is not any more."""
        start, stop = self.wanted
        return part.stop <= start or part.start >= stop

    def let_go(self, *, unread: bool) -> None:
        """Give back memory that others need; see ``Holder``. The parts stay here, as lapsed."""
        for part in list(self._parts):
            if unread:
                self.lost += part.stop - part.start if not part.lapsed else 0
                part.make_way()
            elif self._is_read(part):
                if part.ready:
                    part.let_go()
                else:
                    part.make_way()

    def discard_all(self) -> None:
        """Discard everything."""
        if self._parts:
            self._budget.remove_holder(self)
            self._discard(list(self._parts))

    def _discard(self, parts: list[Block]) -> None:
        for part in parts:
            self._parts.remove(part)
        for part in parts:
            part.discard()


_start = attrgetter("start")
_stop = attrgetter("stop")
_age = attrgetter("age")
