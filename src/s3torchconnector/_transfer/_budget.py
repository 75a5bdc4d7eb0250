"""The bytes that one process may hold on behalf of one client, and the buffers of the usual size.

Whoever needs memory for bytes in flight takes it here and gives it back exactly once. Three ways to take, so that
nothing can dead-lock: *speculative* work (read-ahead, look-ahead) asks and may be refused; work that a *reader* is
waiting for is always granted, since a read in progress must be able to end; a *writer* waits for room, unless it
has nothing in flight whose end would make room.

Buffers of one part are kept and used again: fresh memory costs a page fault and a zeroing for each page.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from s3torchconnector._transfer._memory import LargeBuffer, new_buffer

_MOST_SPARE = 8  # a steady stream gives back as many as it takes: a few bridge the difference


class ByteBudget:
    """``limit`` bytes, and a free list of buffers of ``part_size`` bytes within it. Thread-safe."""

    def __init__(self, limit: int, part_size: int) -> None:
        self.limit = limit
        self.part_size = part_size
        self._lock = threading.RLock()  # re-entrant: finalisers give back, at any moment
        self._room = threading.Condition(self._lock)
        self._waiting = 0  # writers
        self._taken = 0
        self._spare: list[LargeBuffer] = []

    @property
    def taken(self) -> int:
        """Bytes in use; more than ``limit`` only by what readers are waiting for."""
        return self._taken

    def try_take(self, size: int) -> bool:
        """Take ``size`` bytes if they are free."""
        with self._lock:
            if self._taken + size > self.limit:
                return False
            self._taken += size
            return True

    def take(self, size: int) -> None:
        """Take ``size`` bytes in any case."""
        with self._lock:
            self._taken += size

    def wait_take(self, size: int, may_overdraw: Callable[[], bool]) -> None:
        """Wait until ``size`` bytes are free and take them; at once where ``may_overdraw()`` says so.

        ``may_overdraw`` is asked again whenever bytes come back.
        """
        with self._lock:
            while self._taken + size > self.limit and not may_overdraw():
                self._waiting += 1
                try:
                    self._room.wait()
                finally:
                    self._waiting -= 1
            self._taken += size

    def give(self, size: int) -> None:
        """Give ``size`` bytes back."""
        with self._lock:
            self._taken -= size
            if self._waiting:
                self._room.notify_all()

    def buffer(self) -> LargeBuffer:
        """A buffer of ``part_size`` bytes with any content. Its bytes must have been taken."""
        with self._lock:
            if self._spare:
                return self._spare.pop()
        return new_buffer(self.part_size)

    def recycle(self, buffer: LargeBuffer) -> None:
        """Keep a buffer for the next ``buffer()``. No view of it may be in use."""
        with self._lock:
            if len(self._spare) < _MOST_SPARE:
                self._spare.append(buffer)
