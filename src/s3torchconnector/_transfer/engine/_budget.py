"""The bytes that one process may hold on behalf of one client, and the buffers of the usual size.

Whoever needs memory for bytes in flight takes it here and gives it back exactly once. Nothing is taken that is not
there, so that resident memory stays within ``limit``; and nobody waits for what only another's program can give back:

- read-ahead, look-ahead and what a read fetches around its bytes *ask*, and go without if they are refused. Before that
  others let go (``Holder``): of what was read, and, if their reader has been idle for a while, of what was not.
- a train that a read waits for may overdraw by ``reserve``, or else gives up: the read fetches its bytes for itself.
- a *writer* waits for room while its own parts are on their way, since their end makes some. After that it may overdraw
  up to the smallest part that S3 takes, which it then sends.

Bytes are given back by finalisers, too, which strike at any moment, on a thread that has the lock as well. So the lock
is re-entrant, each section under it is one change, and nothing under it waits; holders that let go give back within it.

Large memory is handed out in blocks, which are kept and used again: fresh memory costs a page fault and a zeroing for
each page.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from s3torchconnector._config import MIB
from s3torchconnector._latch import Latch
from s3torchconnector._transfer.engine._memory import LargeBuffer, new_buffer

BUFFER_SIZE = 4 * MIB  # smaller ones cost more turns of the interpreter lock, larger ones come later
_IDLE_SPARE = 2  # blocks kept while nothing is in flight
_SHARE = 8  # the part of the limit that may be overdrawn, and that is made free at a time
_Waiting = deque[Latch]  # each is opened, and taken out, when it is worth another look


class Holder(Protocol):
    """Holds memory that others may have: the bytes can be fetched again.

    Attributes:
        used: when its reader used it last, by ``time.monotonic``; infinite while it does.
    """

    used: float

    def let_go(self, *, unread: bool) -> None:
        """Give back what was read, and with ``unread`` all the rest. Called by any thread; does not wait or raise."""


class ByteBudget:
    """``limit`` bytes, and a free list of blocks within it. Thread-safe.

    Attributes:
        lock: held while what a holder has is given back, by itself or because others need it.
        reserve: bytes beyond ``limit`` for read-ahead that a read waits for.
        idle_after: seconds after which a reader that was not used has to let go of what it has not read.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.reserve = max(BUFFER_SIZE, limit // _SHARE)
        self.idle_after = 1.0
        self.lock = threading.RLock()
        self._writers: _Waiting = deque()  # each is told when bytes come back: they may be those of its own parts
        self._trains: _Waiting = deque()  # told one after the other: a herd would find the room gone
        self._taken = 0
        self._to_come = 0  # of that, for blocks that nobody has yet
        self._spare: list[LargeBuffer] = []
        self._holders: dict[Holder, None] = {}
        self._in_vain = [-math.inf, -math.inf]  # when holders were asked last and had nothing, without and with unread

    @property
    def taken(self) -> int:
        """Bytes in use: at most ``limit``, ``reserve``, and what writers need for their smallest parts."""
        return self._taken

    @property
    def is_full(self) -> bool:
        """Whether there is no room at all."""
        return self._taken >= self.limit

    @property
    def _waiting(self) -> int:
        """How many threads wait for room."""
        return len(self._writers) + len(self._trains)

    def add_holder(self, holder: Holder) -> None:
        """Ask ``holder`` to let go where there is no room."""
        self._holders[holder] = None

    def remove_holder(self, holder: Holder) -> None:
        """It has nothing any more."""
        self._holders.pop(holder, None)

    def has_room(self, size: int, limit: int) -> bool:
        """Whether ``size`` bytes more are no more than ``limit``, once holders have let go."""
        if self._taken + size > limit:
            with self.lock:
                self._make_room(size, limit, unread=True)
        return self._taken + size <= limit

    def try_take(self, size: int, *, to_come: bool = False, unread: bool = False, overdraw: bool = False) -> bool:
        """Take ``size`` bytes if they are free.

        Args:
            to_come: they are for blocks, which ``block`` gives later.
            unread: where there is no room, idle readers let go of what they have not read.
            overdraw: the reserve may be used.
        """
        limit = self.limit + self.reserve if overdraw else self.limit
        with self.lock:
            if self._taken + size > limit:
                self._make_room(size, limit, unread=unread)
                if self._taken + size > limit:
                    return False
            self._add(size, to_come)
            return True

    def take(self, size: int) -> int:
        """Take ``size`` bytes in any case, and return that."""
        with self.lock:
            self._add(size, False)
        return size

    def wait_take(
        self, size: int, need_not_wait: Callable[[], bool], *, unread: bool = False, in_turn: bool = False
    ) -> bool:
        """Wait until ``size`` bytes are free and take them; False, at once, where ``need_not_wait()`` says so.

        ``need_not_wait`` is asked again whenever bytes come back; with ``in_turn``, when it is this one's turn to take
        them, and at ``wake``.
        """
        waiting = self._trains if in_turn else self._writers
        try:
            while not self.try_take(size, unread=unread):
                latch = Latch()
                try:
                    waiting.append(latch)  # before the second look, as who gives back looks the other way round
                    if self.try_take(size, unread=unread):
                        return True
                    if need_not_wait():  # not under the lock: it may wait for locks of others
                        return False
                    latch.wait()
                finally:
                    with contextlib.suppress(ValueError):
                        waiting.remove(latch)
            return True
        finally:
            self._wake_one()  # there may be room for another, also where this one was interrupted

    def give(self, size: int, blocks: Iterable[LargeBuffer] = (), *, to_come: int = 0) -> None:
        """Give ``size`` bytes back, ``to_come`` of them for blocks that were not asked for.

        ``blocks`` are kept for the next who need some. No view of them may be in use.
        """
        with self.lock:
            self._taken -= size
            self._to_come -= to_come
            self._spare.extend(blocks)
            if self._spare:
                self._trim()
        if self._writers:
            _open(self._writers, len(self._writers))
        if self._trains:
            self._wake_one()

    def wake(self) -> None:
        """Have those who wait ask again whether they need to."""
        _open(self._writers, len(self._writers))
        _open(self._trains, len(self._trains))

    def buffer(self, *, to_come: int = 0) -> LargeBuffer:
        """``BUFFER_SIZE`` bytes of any content. They must have been taken, ``to_come`` of them as such."""
        with self.lock:
            self._to_come -= to_come
            if self._spare:
                return self._spare.pop()
        return new_buffer(BUFFER_SIZE)

    def arrived(self, size: int) -> None:
        """Other memory than a block is used for so many bytes that were taken as to come."""
        with self.lock:
            self._to_come -= size
            self._trim()

    def _add(self, size: int, to_come: bool) -> None:
        self._taken += size
        if to_come:
            self._to_come += size
        elif self._spare:
            self._trim()

    def _trim(self) -> None:
        """Under the lock: blocks that nobody uses are memory, too.

        They may use the reserve. Without it, a block would be dropped just as bytes are taken for its next use, and a
        new one costs its pages again.
        """
        most = max(0, self.limit + self.reserve - self._taken + self._to_come) // BUFFER_SIZE
        del self._spare[most if self._taken else min(most, _IDLE_SPARE) :]

    def _make_room(self, size: int, limit: int, *, unread: bool) -> None:
        """Under the lock: have holders let go, the least recently used first."""
        now = time.monotonic()
        if size > limit or not self._holders or now < self._in_vain[unread] + self.idle_after / 8:
            return
        enough = limit - max(size, limit // _SHARE)  # more than is asked for: not to be here again each time
        holders = sorted(self._holders, key=_used)
        for each_unread in (False, True)[: 1 + unread]:
            for holder in holders:
                if self._taken <= enough:
                    return
                if not each_unread or now - holder.used >= self.idle_after:
                    holder.let_go(unread=each_unread)
        if self._taken + size > limit:
            self._in_vain[unread] = now

    def _wake_one(self) -> None:
        """There may be room for another train."""
        if self._trains and self._taken < self.limit:
            _open(self._trains, 1)


def _open(waiting: _Waiting, count: int) -> None:
    for _ in range(count):
        try:
            waiting.popleft().open()
        except IndexError:  # gone meanwhile
            return


def _used(holder: Holder) -> float:
    return holder.used
