"""Which requests a read makes: what to ask for exactly, what with bytes around it, and what before it is read. Pure.

A ``ReadPlan`` is decided before anything is sent or discarded; ``PlanExecutor`` carries it out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import NamedTuple

from s3torchconnector._transfer.engine._ranges import Range, split_on_grid
from s3torchconnector._transfer.reading._block import LARGE, Block
from s3torchconnector._transfer.reading._block_index import BlockIndex
from s3torchconnector._transfer.reading._layout import Layout
from s3torchconnector._transfer.reading._read_policy import ReadPattern


class Gap(NamedTuple):
    """Bytes of a read that no block has.

    Attributes:
        wanted: the bytes, inside one part of the grid.
        block: the block to fetch, which has them and more; None: fetch them straight into the caller's memory.
    """

    wanted: Range
    block: Range | None


class ReadPlan(NamedTuple):
    """What one read does. What it wants and no gap covers is copied from blocks.

    Attributes:
        read: the bytes that are wanted.
        discard: the blocks to discard first: failed ones that can be retried, and those not worth their memory.
        expected: this read and what is expected to be read next; None: as before.
        streams: read ahead first, from the read's own beginning: its bytes come as the first of a long range, and can
            be read before all of that is here. Then ``gaps`` is what is left if there is no room for that.
        gaps: what to fetch for this read.
        reads_ahead: fetch what follows the read, too, before waiting for this read's bytes.
    """

    read: Range
    discard: list[Block]
    expected: tuple[int, float] | None
    streams: bool
    gaps: list[Gap]
    reads_ahead: bool


class RequestPlanner:
    """Cuts reads on the part grid.

    Args:
        pattern: how the reader has been reading, and its policy.
        part_size: bytes of the largest request.
        most_ahead: bytes to be ahead of a reader at most.
        most_kept: bytes of what was read to keep at most, for reads that come back.
        limit: the position from which on nobody will read.
    """

    def __init__(
        self,
        pattern: ReadPattern,
        *,
        part_size: int,
        most_ahead: int,
        most_kept: int,
        limit: int | None,
    ) -> None:
        self.pattern = pattern
        self._part_size = part_size
        self._most_ahead = most_ahead
        self._most_kept = most_kept
        self._limit = limit

    @property
    def bytes_ahead(self) -> int:
        """How many bytes after the last read to fetch before they are asked for."""
        return self.pattern.ahead(self._most_ahead) if self.pattern.in_order else 0

    def plan(self, index: BlockIndex, read: Range, size: int | None) -> ReadPlan:
        """The plan for a read that the pattern has noted already. ``size`` is the object's, if it is known."""
        pattern = self.pattern
        in_order = pattern.in_order
        expected = None if pattern.expects_all else self._expected(read)
        discard = index.retryable()
        layout = index.without(discard)
        if expected is not None and index.has_grown:
            large = LARGE if in_order else sys.maxsize
            more = layout.superfluous(read.start, expected, large=large, most=self._most_kept)
            discard, layout = discard + more, layout.without(more)
        streams = in_order and pattern.continues and read.size < self._part_size and layout.at(read.start) is None
        return ReadPlan(read, discard, expected, streams, self.gaps(layout, read, size), in_order)

    def gaps(self, layout: Layout, read: Range, size: int | None) -> list[Gap]:
        """What no block has of a read, and how to fetch it. ``size`` is the object's, if it is known."""
        return [
            Gap(wanted, self._widened(layout, wanted, size, leads=wanted.start == read.start))
            for gap in layout.gaps(read.start, read.stop)
            for wanted in split_on_grid(gap.start, gap.stop, self._part_size)
        ]

    def ahead(self, layout: Layout, position: int, size: int, *, all_of_it: bool = False) -> Iterator[Range]:
        """What to fetch from ``position`` on before it is read, the nearest first.

        ``all_of_it`` says that the object is likely to be read to its end, though it has not been read in order so far.
        """
        end = self._useful(size, size)
        ahead = self._most_ahead if all_of_it else self.bytes_ahead
        least = max(self.pattern.policy.smallest, min(ahead, self._part_size))
        for gap in layout.gaps(position, min(end, position + ahead)):
            for piece in split_on_grid(gap.start, gap.stop, self._part_size):
                stop = max(piece.stop, min(end, self._part_end(piece), piece.start + least))
                yield Range(piece.start, layout.next_start(piece.stop, stop))

    def _expected(self, read: Range) -> tuple[int, int]:
        """This read, and what is expected to be read next."""
        if self.pattern.goes_back:
            return read.start - max(1, self.pattern.before(self._part_size)), read.stop
        ahead = self.bytes_ahead
        return read.start, read.stop + (ahead + 2 * self._part_size if ahead else 1)  # requests end on the grid

    def _widened(self, layout: Layout, wanted: Range, size: int | None, *, leads: bool) -> Range | None:
        """The block to fetch for bytes that are not worth a request of their own; None for those that are."""
        if self.pattern.goes_back and leads:
            return self._widened_backwards(layout, wanted)
        in_order = self.pattern.in_order
        if not in_order and wanted.size >= self.pattern.policy.smallest:
            return None
        part_end = self._useful(self._part_end(wanted), size)
        wish = max(wanted.size, self.pattern.policy.smallest, self.bytes_ahead)
        start, end = wanted.start, layout.next_start(wanted.stop, min(part_end, wanted.start + wish))
        if leads and not self.pattern.continues and end == size:
            # Directories and footers lie at an object's end, and are read backwards.
            start = layout.previous_stop(start, min(start, max(0, end - self.pattern.policy.smallest)))
        wider = Range(start, end)
        return None if wider == wanted else wider

    def _widened_backwards(self, layout: Layout, wanted: Range) -> Range | None:
        wish = max(self.pattern.policy.smallest, self.pattern.before(self._part_size))
        start = layout.previous_stop(wanted.start, max(0, wanted.stop - wish))
        return Range(start, wanted.stop) if start < wanted.start else None

    def _part_end(self, piece: Range) -> int:
        return piece.start - piece.start % self._part_size + self._part_size

    def _useful(self, stop: int, size: int | None) -> int:
        return min(edge for edge in (stop, size, self._limit) if edge is not None)
