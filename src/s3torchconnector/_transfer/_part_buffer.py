"""Written bytes gathered into parts, with as few copies as the type of what is written allows."""

from __future__ import annotations

from collections.abc import Callable

from s3torchconnector._config import KIB
from s3torchconnector._transfer._budget import BLOCK, ByteBudget
from s3torchconnector._transfer._memory import LargeBuffer, copy
from s3torchconnector._wire import Buffer

_WORTH_KEEPING = 64 * KIB  # bytes objects from this size on are referenced, smaller ones are gathered


class PartBuffer:
    """The part that is being filled: a list of buffers, sent one after the other.

    ``bytes`` cannot change and are kept as they are; everything else belongs to the program again as soon as
    ``write`` returns, and is copied into buffers of the budget. Every byte held has been taken from the budget, but for
    those that are lent; ``release`` gives all of them back, once the part is stored or given up.
    """

    def __init__(self, budget: ByteBudget, may_overdraw: Callable[[], bool]) -> None:
        self.size = 0
        self.segments: list[Buffer] = []
        self._budget = budget
        self._may_overdraw = may_overdraw
        self._buffers: list[LargeBuffer] = []
        self._filled = 0  # bytes of the last buffer in use
        self._segment_start = 0  # where in the last buffer the segment begins that is being filled
        self._taken = 0

    def add(self, data: memoryview, *, immutable: bool) -> None:
        """Append all of ``data``; waits for room in the budget."""
        if immutable and len(data) >= _WORTH_KEEPING:
            self._take(len(data))
            self.lend(data)
            return
        while len(data):
            if not self._buffers or self._filled == BLOCK:
                self._open_buffer()
            buffer = self._buffers[-1]
            count = min(len(data), BLOCK - self._filled)
            copy(memoryview(buffer)[self._filled : self._filled + count], data[:count])
            self._filled += count
            self.size += count
            data = data[count:]

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
        buffers, self._buffers = self._buffers, []
        taken, self._taken = self._taken, 0
        for buffer in buffers:
            self._budget.recycle(buffer)
        self._budget.give(taken)

    def _take(self, size: int) -> None:
        self._budget.wait_take(size, self._may_overdraw)
        self._taken += size

    def _open_buffer(self) -> None:
        self._seal()
        self._take(BLOCK)
        self._buffers.append(self._budget.block())
        self._filled = self._segment_start = 0

    def _seal(self) -> None:
        """Make what was copied since the last segment a segment of its own."""
        if self._buffers and self._filled > self._segment_start:
            self.segments.append(memoryview(self._buffers[-1])[self._segment_start : self._filled])
            self._segment_start = self._filled
