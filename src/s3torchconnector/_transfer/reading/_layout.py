"""The positions of the blocks of an object: disjoint, sorted. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from operator import attrgetter

from s3torchconnector._transfer.engine._ranges import Range
from s3torchconnector._transfer.reading._block import Block

# Blocks kept of what was read, for reads that come back: directories of zip files, footers of parquet files, members or
# pages that share a block.
_MOST_READ = 256


class Layout:
    """Some of a reader's blocks. Says where they lie, and changes nothing."""

    def __init__(self, blocks: list[Block]) -> None:
        self._blocks = blocks

    def __iter__(self) -> Iterator[Block]:
        return iter(list(self._blocks))

    def __bool__(self) -> bool:
        return bool(self._blocks)

    def without(self, blocks: list[Block]) -> Layout:
        """The same without these blocks."""
        return Layout([block for block in self._blocks if block not in blocks]) if blocks else self

    def at(self, position: int) -> Block | None:
        """The block that has the byte at ``position``."""
        index = bisect_right(self._blocks, position, key=start_of) - 1
        return self._blocks[index] if index >= 0 and position < self._blocks[index].stop else None

    def overlapping(self, start: int, stop: int) -> list[Block]:
        """The blocks that have bytes of ``start`` to ``stop``, in order."""
        first = bisect_right(self._blocks, start, key=_stop_of)
        return self._blocks[first : bisect_left(self._blocks, stop, key=start_of)]

    def gaps(self, start: int, stop: int) -> list[Range]:
        """What no block has of ``start`` to ``stop``, in order."""
        gaps = []
        for block in self.overlapping(start, stop):
            if block.start > start:
                gaps.append(Range(start, block.start))
            start = block.stop
        if start < stop:
            gaps.append(Range(start, stop))
        return gaps

    def next_start(self, position: int, default: int) -> int:
        """Where the first block begins that begins at ``position`` or later, but no later than ``default``."""
        index = bisect_left(self._blocks, position, key=start_of)
        return min(default, self._blocks[index].start) if index < len(self._blocks) else default

    def previous_stop(self, position: int, default: int) -> int:
        """Where the last block ends that ends at ``position`` or earlier, but no earlier than ``default``."""
        index = bisect_right(self._blocks, position, key=_stop_of) - 1
        return max(default, self._blocks[index].stop) if index >= 0 else default

    def retryable(self) -> list[Block]:
        """The blocks that will not come, but may if they are asked for again."""
        return [block for block in self._blocks if not block.ready and block.can_be_retried]

    def superfluous(self, position: int, expected: tuple[int, float], *, large: int, most: int) -> list[Block]:
        """The blocks that are not worth keeping.

        Args:
            position: those of ``large`` bytes and more that end before it were read.
            expected: where reads are expected; what was read elsewhere is kept up to ``most`` bytes, the newest.
        """
        passed = self._blocks[: bisect_right(self._blocks, position, key=_stop_of)]
        found = [block for block in passed if block.stop - block.start >= large]
        read = [block for block in self.without(found) if block.ready and is_outside(block, expected)]
        return found + _oldest_of_too_many(read, most)


def is_outside(block: Block, expected: tuple[int, float]) -> bool:
    """Whether no read of the block is expected: it was read, or the reader reads at another place."""
    start, stop = expected
    return block.stop <= start or block.start >= stop


def _oldest_of_too_many(read: list[Block], most: int) -> list[Block]:
    count, size = len(read), sum(block.stop - block.start for block in read)
    if count <= _MOST_READ and size <= most:
        return []
    read.sort(key=_age_of)
    keep = 0
    while read[keep:] and (count - keep > _MOST_READ // 2 or size > most // 2):
        size -= read[keep].stop - read[keep].start
        keep += 1
    return read[:keep]


start_of = attrgetter("start")
_stop_of = attrgetter("stop")
_age_of = attrgetter("age")
