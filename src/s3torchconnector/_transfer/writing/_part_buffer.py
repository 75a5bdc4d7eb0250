"""The part of an upload that is being filled, with as few copies as the type of what is written allows.

- ``bytes`` cannot change: large ones are sent without a copy, and small ones are copied.
- Memory that is *lent* does not change until the upload has ended (for example, the tensors of a checkpoint): it is
  sent without a copy, and takes nothing from the budget.
- Everything else belongs to the program again as soon as ``write`` returns, and is copied into buffers of the budget.
"""

from __future__ import annotations

from collections.abc import Callable

from s3torchconnector._config import KIB
from s3torchconnector._transfer.engine._budget import BUFFER_SIZE, ByteBudget
from s3torchconnector._transfer.engine._memory import LargeBuffer, copy, new_buffer
from s3torchconnector._wire import Buffer

_MIN_REFERENCED = 64 * KIB  # bytes objects from this size on are sent from where they are, smaller ones are copied
_FIRST_SMALL = 64 * KIB  # bytes of the first buffer if the budget has no room for a whole one; the next ones double


class PartBuffer:
    """One part: a list of views of memory, sent in order.

    Every byte of it is reserved in the budget, except for those that are lent. ``release`` gives all of them back, when
    the part is stored or the upload is aborted.

    Args:
        budget: for the memory of the part.
        is_alone: returns whether no earlier part of this upload is being sent, whose end would free memory.
        least: bytes that a part must have: for those, the budget is overdrawn if nothing is free.
    """

    def __init__(self, budget: ByteBudget, is_alone: Callable[[], bool], least: int) -> None:
        self.size = 0
        self._views: list[Buffer] = []
        self._budget = budget
        self._is_alone = is_alone
        self._least = least
        self._buffer: LargeBuffer = bytearray()  # that is being filled
        self._filled = 0  # bytes of it in use
        self._view_start = 0  # where in it the next view begins
        self._reusable: list[LargeBuffer] = []  # buffers of the budget's, which go back to it
        self._reserved = 0

    def add(self, data: memoryview, *, immutable: bool, lent: bool = False) -> int:
        """Append ``data``, or as much of it as the budget has room for, and return how many bytes that is.

        Waits for room as long as that can help. To a part that has fewer than ``least`` bytes, something is appended.
        """
        if lent:
            self.lend(data)
            return len(data)
        if immutable and len(data) >= _MIN_REFERENCED:
            count = self._reserve(len(data)) or self._overdraw(len(data))
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
        """Append ``data``, which stays as it is until the part is stored. Takes nothing of the budget."""
        self._seal()
        self._views.append(data)
        self.size += len(data)

    def body(self) -> list[Buffer]:
        """The part's bytes, in order."""
        self._seal()
        return self._views

    def release(self) -> None:
        """Give the memory back to the budget. May be called again, and by several threads at a time."""
        self._views = []
        self._buffer = bytearray()
        reusable, self._reusable = self._reusable, []
        reserved, self._reserved = self._reserved, 0
        self._budget.give_back(reserved, reusable)

    def _reserve(self, size: int) -> int:
        reserved = size if self._budget.wait_take(size, self._is_alone, unread=True) else 0
        self._reserved += reserved
        return reserved

    def _overdraw(self, size: int) -> int:
        """Reserve bytes that are not free, as few as possible: nothing else can free memory for this upload."""
        count = max(0, min(size, self._least - self.size))
        self._reserved += self._budget.take(count)
        return count

    def _open_buffer(self, wanted: int) -> bool:
        """Get a buffer to fill; False if there is no room for one, and the part need not grow."""
        self._seal()
        if self._reserve(BUFFER_SIZE):
            self._buffer = self._budget.buffer()
            self._reusable.append(self._buffer)
        else:
            count = self._overdraw(max(_FIRST_SMALL, wanted, self.size))
            if not count:
                return False
            self._buffer = new_buffer(count)
        self._filled = self._view_start = 0
        return True

    def _seal(self) -> None:
        """Append a view of what was copied since the last one."""
        if self._filled > self._view_start:
            self._views.append(memoryview(self._buffer)[self._view_start : self._filled])
            self._view_start = self._filled
