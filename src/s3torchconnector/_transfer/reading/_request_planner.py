"""How the reads of one object are covered by requests: what of it is asked for as it is, what with something around
it, and what before it is asked for. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterator

from s3torchconnector._transfer.engine._ranges import Range, split_on_grid
from s3torchconnector._transfer.reading._block_index import BlockIndex
from s3torchconnector._transfer.reading._read_policy import ReadPattern, ReadPolicy


class RequestPlanner:
    """Cuts reads on the part grid.

    Args:
        policy, pattern: what to fetch beyond what is asked for, and how the reader has been reading.
        part_size: bytes of the largest request.
        most_ahead: bytes to be ahead of a reader at most.
        limit: the position that nobody will read at or behind.
    """

    def __init__(
        self, policy: ReadPolicy, pattern: ReadPattern, *, part_size: int, most_ahead: int, limit: int | None
    ) -> None:
        self._policy = policy
        self._pattern = pattern
        self._part_size = part_size
        self._most_ahead = most_ahead
        self._limit = limit

    @property
    def bytes_ahead(self) -> int:
        """How far behind the last read to fetch unasked."""
        return self._pattern.ahead(self._most_ahead) if self._pattern.in_order else 0

    def wanted(self, read: Range) -> tuple[int, int]:
        """This read, and what is expected to be read next."""
        if self._pattern.goes_back:
            return read.start - max(1, self._pattern.before(self._part_size)), read.stop
        ahead = self.bytes_ahead
        return read.start, read.stop + (ahead + 2 * self._part_size if ahead else 1)  # requests end on the grid

    def missing(self, index: BlockIndex, read: Range, size: int | None) -> Iterator[tuple[Range, Range | None]]:
        """The pieces of a read that no part has, each with the part to fetch for it; None: as it is.

        Parts may be put on the shelf between two of them. ``size`` is the object's, if it is known.
        """
        for gap in index.gaps(read.start, read.stop):
            for piece in split_on_grid(gap.start, gap.stop, self._part_size):
                yield piece, self._widened(index, piece, size, leads=piece.start == read.start)

    def ahead(self, index: BlockIndex, position: int, size: int, *, all_of_it: bool = False) -> Iterator[Range]:
        """What to fetch behind ``position`` before it is read, the nearest first.

        ``all_of_it`` says that the object is likely to be read to its end, though it has not been read in order so far.
        """
        end = self._useful(size, size)
        ahead = self._most_ahead if all_of_it else self.bytes_ahead
        least = max(self._policy.smallest, min(ahead, self._part_size))
        for gap in index.gaps(position, min(end, position + ahead)):
            for piece in split_on_grid(gap.start, gap.stop, self._part_size):
                stop = max(piece.stop, min(end, self._part_end(piece), piece.start + least))
                yield Range(piece.start, index.next_start(piece.stop, stop))

    def _widened(self, index: BlockIndex, piece: Range, size: int | None, *, leads: bool) -> Range | None:
        """The part to fetch for a piece that is not worth a request of its own; None for one that is."""
        if self._pattern.goes_back and leads:
            return self._widened_backwards(index, piece)
        in_order = self._pattern.in_order
        if not in_order and piece.size >= self._policy.smallest:
            return None
        part_end = self._useful(self._part_end(piece), size)
        wish = max(piece.size, self._policy.smallest, self.bytes_ahead)
        start, end = piece.start, index.next_start(piece.stop, min(part_end, piece.start + wish))
        if leads and not self._pattern.continues and end == size:
            # Directories and footers lie at an object's end, and are read backwards.
            start = index.previous_stop(start, min(start, max(0, end - self._policy.smallest)))
        wanted = Range(start, end)
        return None if wanted == piece else wanted

    def _widened_backwards(self, index: BlockIndex, piece: Range) -> Range | None:
        wish = max(self._policy.smallest, self._pattern.before(self._part_size))
        start = index.previous_stop(piece.start, max(0, piece.stop - wish))
        return Range(start, piece.stop) if start < piece.start else None

    def _part_end(self, piece: Range) -> int:
        return piece.start - piece.start % self._part_size + self._part_size

    def _useful(self, stop: int, size: int | None) -> int:
        return min(edge for edge in (stop, size, self._limit) if edge is not None)
