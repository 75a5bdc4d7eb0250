"""Written bytes gathered into parts, with as few copies as the type of what is written allows."""

from __future__ import annotations

from collections.abc import Callable

from s3torchconnector._config import KIB
from s3torchconnector._transfer.engine._budget import BUFFER_SIZE, ByteBudget
from s3torchconnector._transfer.engine._memory import LargeBuffer, copy, new_buffer
from s3torchconnector._wire import Buffer

_WORTH_KEEPING = 64 * KIB  # bytes objects from this size on are referenced, smaller ones are gathered


_FIRST = 64 * KIB  # bytes of the first buffer where there is no room for a block; they double


class PartBuffer:
    """The part that is being filled: a list of buffers, sent one after the other.

    ``bytes`` cannot change and are kept as they are; everything else belongs to the program again as soon as
    ``write`` returns, and is copied into buffers of the budget. Every byte held has been taken from the budget, but for
    those that are lent; ``release`` gives all of them back, once the part is stored or given up.

    Args:
        is_alone: whether no earlier part of this upload is on its way, whose end would make room.
        least: bytes that a part must have, for which memory is taken that is not free.
    """

    def __init__(self, budget: ByteBudget, is_alone: Callable[[], bool], least: int) -> None:
        self.size = 0
        self.segments: list[Buffer] = []
        self._budget = budget
        self._is_alone = is_alone
        self._least = least
        self._buffer: LargeBuffer = bytearray()  # that is being filled
        self._blocks: list[LargeBuffer] = []  # to be used again
        self._filled = 0  # bytes of the buffer in use
        self._segment_start = 0  # where in the buffer the segment begins that is being filled
        self._taken = 0

    def add(self, data: memoryview, *, immutable: bool, lent: bool = False) -> int:
        """Append ``data``, or as much of it as there is room for in the budget, and return how much.

        Waits for room as long as that can help. Nothing is appended only to a part that has ``least`` bytes.
        """
        if lent:
            self.lend(data)
            return len(data)
        if immutable and len(data) >= _WORTH_KEEPING:
            count = self._take(len(data)) or self._overdraw(len(data))
            if count:
                self.lend(data[:count])
            return count
        added = 0
        while added < len(data):
            if self._filled == len(self._buffer) and not self._open_buffer(len(data) - added):
                break
            count = min(len(data) - added, len(self._buffer) - self._filled)
            place = memoryview(self._buffer)[self._filled : self._filled + count]
            copy(place, data[added : added + count])
            self._filled += count
            self.size += count
            added += count
        return added

    def lend(self, data: memoryview) -> None:
        """Append ``data``, which stays as it is until the part is stored: its owner keeps it anyway."""
        self._seal()
        self.segments.append(data)
        self.size += len(data)

    def body(self) -> list[Buffer]:
        """The part's bytes, in order."""
        self._seal()
        return self.segments

    def release(self) -> None:
        """Let go of the memory, and give the budget its bytes back: once, whoever else does so at the same time."""
        self.segments = []
        self._buffer = bytearray()
        blocks, self._blocks = self._blocks, []
        taken, self._taken = self._taken, 0
        self._budget.give(taken, blocks)

    def _take(self, size: int) -> int:
        taken = size if self._budget.wait_take(size, self._is_alone, unread=True) else 0
        self._taken += taken
        return taken

    def _overdraw(self, size: int) -> int:
        """Take bytes that are not free, as few as there must be: nobody else can make room for this upload."""
        count = max(0, min(size, self._least - self.size))
        self._taken += self._budget.take(count)
        return count

    def _open_buffer(self, wanted: int) -> bool:
        """Have a buffer to fill; False where there is no room for one, and the part need not grow."""
        self._seal()
        if self._take(BUFFER_SIZE):
            self._buffer = self._budget.buffer()
            self._blocks.append(self._buffer)
        else:
            count = self._overdraw(max(_FIRST, wanted, self.size))
            if not count:
                return False
            self._buffer = new_buffer(count)
        self._filled = self._segment_start = 0
        return True

    def _seal(self) -> None:
        """Make what was copied since the last segment a segment of its own."""
        if self._filled > self._segment_start:
            self.segments.append(memoryview(self._buffer)[self._segment_start : self._filled])
            self._segment_start = self._filled
