"""The bytes that one client may hold in one process, and the buffers of the usual size.

Code that needs memory for bytes in flight takes it here and gives it back exactly once. It takes no more than is free,
so that resident memory stays within ``limit``. And no code waits for memory that only another part of the program can
give back:

- Read-ahead, look-ahead and what a read fetches around its bytes *ask*, and do without if they are refused. Before they
  are, the holders of memory (``MemoryHolder``) release some: blocks that were read and, if their reader has been idle
  for a while, blocks that were not.
- A streamed range that a read waits for may use the ``overdraft``. If that is used up, it is released, and the read
  fetches its own bytes.
- A *writer* waits while its own parts are being sent, because their end frees memory. After that it may exceed the
  limit by up to the smallest part that S3 accepts, which it then sends.

Finalisers give bytes back as well. They run at any moment, also on a thread that has the lock. So the lock is
re-entrant, each section under it makes one change, and nothing waits under it. Holders release memory under it.

Large memory is handed out in buffers that are kept and used again: new memory costs a page fault and a zeroing for each
page.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from s3torchconnector._activity import activity
from s3torchconnector._config import MIB
from s3torchconnector._latch import Latch
from s3torchconnector._transfer.engine._memory import LargeBuffer, new_buffer

BUFFER_SIZE = 4 * MIB  # smaller ones take the interpreter lock more often, larger ones are full later
_IDLE_SPARE = 2  # buffers kept while nothing is in flight
_SHARE = 8  # the limit divided by this may be overdrawn, and is made free at a time
_Waiting = deque[Latch]  # each is opened, and removed, when it is worth another look


class MemoryHolder(Protocol):
    """Holds memory that others may have: its bytes can be fetched again.

    Attributes:
        used: when its reader used it last, by ``time.monotonic``; infinite while it does.
    """

    used: float

    def release_memory(self, *, unread: bool) -> None:
        """Give back the memory of bytes that were read, and with ``unread`` the rest, too. Any thread calls it; does
        not wait or raise.
        """


class ByteBudget:
    """``limit`` bytes, and a free list of buffers within it. Thread-safe.

    Attributes:
        lock: held while a holder's memory is given back, by the holder or because others need it.
        overdraft: bytes beyond ``limit`` for read-ahead that a read waits for.
        idle_after: seconds after which a reader that was not used has to release what it has not read.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.overdraft = max(BUFFER_SIZE, limit // _SHARE)
        self.idle_after = 1.0
        self.lock = threading.RLock()
        self._writers: _Waiting = deque()  # all are woken when bytes come back: these may be of their own parts
        self._queue: _Waiting = deque()  # woken one at a time: the first would leave no room for the rest
        self._taken = 0
        self._reserved = 0  # of that, for buffers that are not handed out yet
        self._spare: list[LargeBuffer] = []
        self._holders: dict[MemoryHolder, None] = {}
        # When holders were last asked and had nothing to release: only what was read, and also what was not.
        self._last_in_vain = [-math.inf, -math.inf]

    @property
    def taken(self) -> int:
        """Bytes in use: at most ``limit``, ``overdraft``, and what writers need for their smallest parts."""
        return self._taken

    @property
    def is_full(self) -> bool:
        """Whether there is no room at all."""
        return self._taken >= self.limit

    @property
    def waiting(self) -> int:
        """How many threads wait for room."""
        return len(self._writers) + len(self._queue)

    def __repr__(self) -> str:
        return (
            f"<ByteBudget [{self._taken} of {self.limit} bytes taken, {self._reserved} of them reserved, "
            f"{len(self._spare)} spare buffers, {self.waiting} waiting]>"
        )

    def add_holder(self, holder: MemoryHolder) -> None:
        """Ask ``holder`` to release memory when there is no room."""
        self._holders[holder] = None

    def remove_holder(self, holder: MemoryHolder) -> None:
        """It holds nothing any more."""
        self._holders.pop(holder, None)

    def has_room(self, size: int, limit: int) -> bool:
        """Whether ``size`` bytes more stay within ``limit``, after holders have released memory."""
        if self._taken + size > limit:
            with self.lock:
                self._make_room(size, limit, unread=True)
        return self._taken + size <= limit

    def try_take(self, size: int, *, reserved: bool = False, unread: bool = False, overdraw: bool = False) -> bool:
        """Take ``size`` bytes if they are free.

        Args:
            reserved: they are for buffers, which ``buffer`` gives later.
            unread: if there is no room, idle readers release what they have not read.
            overdraw: the overdraft may be used.
        """
        limit = self.limit + self.overdraft if overdraw else self.limit
        with self.lock:
            if self._taken + size > limit:
                self._make_room(size, limit, unread=unread)
                if self._taken + size > limit:
                    return False
            self._add(size, reserved)
            return True

    def take(self, size: int) -> int:
        """Take ``size`` bytes whether or not they are free, and return ``size``."""
        with self.lock:
            self._add(size, False)
        return size

    @activity("waits for room in the memory budget")
    def wait_take(
        self, size: int, need_not_wait: Callable[[], bool], *, unread: bool = False, queued: bool = False
    ) -> bool:
        """Wait until ``size`` bytes are free and take them; return False at once if ``need_not_wait()`` says so.

        ``need_not_wait`` is asked again whenever bytes come back. With ``queued``, threads are woken one at a time, and
        it is asked when this thread is woken, and at ``wake``.
        """
        waiting = self._queue if queued else self._writers
        try:
            while not self.try_take(size, unread=unread):
                latch = Latch()
                try:
                    waiting.append(latch)  # before the second look: a thread that gives back does this in reverse order
                    if self.try_take(size, unread=unread):
                        return True
                    if need_not_wait():  # not under the lock: it may wait for other locks
                        return False
                    latch.wait()
                finally:
                    with contextlib.suppress(ValueError):
                        waiting.remove(latch)
            return True
        finally:
            self._wake_one()  # there may be room for another, also if this wait was interrupted

    def give_back(self, size: int, buffers: Iterable[LargeBuffer] = (), *, reserved: int = 0) -> None:
        """Give ``size`` bytes back, ``reserved`` of them for buffers that were not asked for.

        ``buffers`` are kept for others. No view of them may be in use.
        """
        with self.lock:
            self._taken -= size
            self._reserved -= reserved
            self._spare.extend(buffers)
            if self._spare:
                self._trim()
        if self._writers:
            _open(self._writers, len(self._writers))
        if self._queue:
            self._wake_one()

    def wake(self) -> None:
        """Have all that wait ask again whether they need to."""
        _open(self._writers, len(self._writers))
        _open(self._queue, len(self._queue))

    def buffer(self, *, reserved: int = 0) -> LargeBuffer:
        """``BUFFER_SIZE`` bytes of any content. They must have been taken, and ``reserved`` of them reserved."""
        with self.lock:
            self._reserved -= reserved
            if self._spare:
                return self._spare.pop()
        return new_buffer(BUFFER_SIZE)

    def use_reserved(self, size: int) -> None:
        """So many reserved bytes are used for other memory than a buffer."""
        with self.lock:
            self._reserved -= size
            self._trim()

    def _add(self, size: int, reserved: bool) -> None:
        self._taken += size
        if reserved:
            self._reserved += size
        elif self._spare:
            self._trim()

    def _trim(self) -> None:
        """Under the lock: free spare buffers for which there is no room, since they are memory, too.

        They may use the overdraft. Otherwise a buffer would be freed just when bytes are taken for its next use, and a
        new one costs its pages again.
        """
        most = max(0, self.limit + self.overdraft - self._taken + self._reserved) // BUFFER_SIZE
        del self._spare[most if self._taken else min(most, _IDLE_SPARE) :]

    def _make_room(self, size: int, limit: int, *, unread: bool) -> None:
        """Under the lock: have holders release memory, the least recently used first."""
        now = time.monotonic()
        if size > limit or not self._holders or now < self._last_in_vain[unread] + self.idle_after / 8:
            return
        enough = limit - max(size, limit // _SHARE)  # more than is asked for, so as not to come back each time
        holders = sorted(self._holders, key=_used)
        for each_unread in (False, True)[: 1 + unread]:
            for holder in holders:
                if self._taken <= enough:
                    return
                if not each_unread or now - holder.used >= self.idle_after:
                    holder.release_memory(unread=each_unread)
        if self._taken + size > limit:
            self._last_in_vain[unread] = now

    def _wake_one(self) -> None:
        """There may be room for the first of the queue."""
        if self._queue and self._taken < self.limit:
            _open(self._queue, 1)


def _open(waiting: _Waiting, count: int) -> None:
    for _ in range(count):
        try:
            waiting.popleft().open()
        except IndexError:  # it has stopped waiting
            return


def _used(holder: MemoryHolder) -> float:
    return holder.used
