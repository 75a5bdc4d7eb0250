"""The bytes that one process may hold on behalf of one client, and the buffers of the usual size.

Whoever needs memory for bytes in flight takes it here and gives it back exactly once. Three ways to take, so that
nothing can dead-lock: *speculative* work (read-ahead, look-ahead) asks and may be refused; work that a *reader* is
waiting for is always granted, since a read in progress must be able to end; a *writer* waits for room, unless it
has nothing in flight whose end would make room.

Bytes are given back by finalisers, too, which strike at any moment, on a thread that has the lock as well. So the lock
is re-entrant, each section under it is one change, and nothing under it waits, calls others, or wakes them.

Large memory is handed out in blocks, which are kept and used again: fresh memory costs a page fault and a zeroing for
each page.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable

from s3torchconnector._config import MIB
from s3torchconnector._latch import Latch
from s3torchconnector._transfer._memory import LargeBuffer, new_buffer

BLOCK = 4 * MIB  # smaller ones cost more turns of the interpreter lock, larger ones come later
_IDLE_SPARE = 2  # blocks kept while nothing is in flight
_Waiting = deque[Latch]  # each is opened, and taken out, when it is worth another look


class ByteBudget:
    """``limit`` bytes, and a free list of blocks within it. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.RLock()
        self._for_more: _Waiting = deque()
        self._for_a_block: _Waiting = deque()  # those who want no more than that
        self._taken = 0
        self._spare: list[LargeBuffer] = []
        self._out = 0  # blocks in use: less than has been taken, since some of that is for bytes that are to come

    @property
    def taken(self) -> int:
        """Bytes in use; more than ``limit`` only by what readers are waiting for."""
        return self._taken

    @property
    def is_full(self) -> bool:
        """Whether there is no room at all."""
        return self._taken >= self.limit

    @property
    def _waiting(self) -> int:
        """How many threads wait for room."""
        return len(self._for_more) + len(self._for_a_block)

    def try_take(self, size: int) -> bool:
        """Take ``size`` bytes if they are free."""
        with self._lock:
            if self._taken + size > self.limit:
                return False
            self._taken += size
            return True

    def take(self, size: int) -> int:
        """Take ``size`` bytes in any case, and return that."""
        with self._lock:
            self._taken += size
        return size

    def wait_take(self, size: int, may_overdraw: Callable[[], bool]) -> None:
        """Wait until ``size`` bytes are free and take them; at once where ``may_overdraw()`` says so.

        ``may_overdraw`` is asked again whenever bytes come back.
        """
        waiting = self._for_a_block if size <= BLOCK else self._for_more
        try:
            while not self.try_take(size):
                latch = Latch()
                try:
                    waiting.append(latch)  # before the second look, as who gives back looks the other way round
                    if self.try_take(size):
                        return
                    if may_overdraw():  # not under the lock: it may wait for locks of others
                        self.take(size)
                        return
                    latch.wait()
                finally:
                    with contextlib.suppress(ValueError):
                        waiting.remove(latch)
        finally:
            self._wake_one()  # there may be room for another, also where this one was interrupted

    def give(self, size: int) -> None:
        """Give ``size`` bytes back."""
        with self._lock:
            self._taken -= size
            if not self._taken:
                del self._spare[_IDLE_SPARE:]
        _open(self._for_more, len(self._for_more))
        self._wake_one()

    def _wake_one(self) -> None:
        """Of those who want a block at most, one after the other: a herd would find the room gone."""
        if self._for_a_block and self._taken < self.limit:
            _open(self._for_a_block, 1)

    def wake(self) -> None:
        """Have those who wait ask again whether they may overdraw."""
        _open(self._for_more, len(self._for_more))
        _open(self._for_a_block, len(self._for_a_block))

    def block(self) -> LargeBuffer:
        """``BLOCK`` bytes of any content. They must have been taken."""
        with self._lock:
            self._out += 1
            if self._spare:
                return self._spare.pop()
        return new_buffer(BLOCK)

    def recycle(self, block: LargeBuffer) -> None:
        """Keep a block for the next who needs one. No view of it may be in use."""
        with self._lock:
            self._out -= 1
            if len(self._spare) < _IDLE_SPARE or (self._out + len(self._spare)) * BLOCK < self.limit:
                self._spare.append(block)


def _open(waiting: _Waiting, count: int) -> None:
    for _ in range(count):
        try:
            waiting.popleft().open()
        except IndexError:  # gone meanwhile
            return
