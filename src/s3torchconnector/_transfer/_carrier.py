"""Many small requests on one thread.

A thread for each small object spends more time on taking the interpreter lock in turns than on the object, and even a
second thread does: three system calls, and as many switches. The carrier sends many requests, waits for whichever
answer goes on first, and receives what is here of it, without ever waiting for one answer while others are there.

Contract: ``submit`` queues an errand; the carrier calls its ``begin``, waits until its exchange is readable, calls its
``proceed`` until that says that it is over, and soon after that its ``conclude``, for several errands in a row. The
carrier runs on a worker thread while there are errands, and takes new ones between two receptions. An exchange that is
not over after ``silence`` seconds is aborted, so that its errand can try again elsewhere; before, one whose answer does
not begin in the usual time is sent again (``_wire/_hedging``).

To open a connection may take long, and is waited for by workers: they put it into the pool, where the carrier finds it.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

from s3torchconnector._transfer._workers import Threads
from s3torchconnector._wire import Exchange, Hedging, NoneIdle, PoolIsFull, have_descriptors

_SCRATCH = 256 * 1024  # bytes: the head and the body of an object that is received in one system call
# Objects received before those who wait are woken. Woken for each, a reader and the carrier take the interpreter lock
# in turns, which costs a quarter of the time.
_AT_ONCE = 16
_CONNECTING = 32  # connections that are opened at a time
_TRY_AGAIN = 10e-3  # seconds after which a full pool may have room: others make it, and tell nobody


class Errand(Protocol):
    """A request that is sent and received in steps."""

    def connect(self) -> None:
        """Open a connection that ``begin`` or a second request will find; where that fails, go on elsewhere, unless
        it was begun meanwhile. Runs on a worker. Does not raise."""

    def begin(self, *, wait: bool, connect: bool) -> Exchange | None:
        """Send; None where there is nothing to wait for: it was given up, or goes on elsewhere.

        Raises:
            PoolIsFull: all connections are in use, and ``wait`` is false. May be called again.
            NoneIdle: a connection has to be opened, and ``connect`` is false. May be called again.
        """

    def proceed(self, scratch: bytearray) -> bool:
        """Receive what is here, by way of ``scratch``; whether there is nothing more to wait for. Does not raise."""

    def conclude(self) -> None:
        """Wake who waits for what was received. Does not raise."""

    def fail(self, error: Exception) -> None:
        """It will not be begun: tell who waits. Does not raise."""


class Carrier:
    """Runs errands on at most one of ``workers``' threads, ``most`` on their way at a time."""

    def __init__(self, workers: Threads, most: int, silence: float, hedging: Hedging) -> None:
        self._workers = workers
        self._most = most
        self._silence = silence
        self._hedging = hedging
        self._lock = threading.Lock()
        self._queue: deque[Errand] = deque()
        self._connecting = 0  # connections that are being opened
        self._round: _Round | None = None  # while a thread is at it

    def submit(self, errand: Errand) -> None:
        """Have ``errand`` begun and finished. Does not wait.

        Raises:
            RuntimeError: the client is closed, or there is no thread to be had.
            S3ConnectionError: there is no descriptor to be had.
        """
        current = None
        try:
            with self._lock:
                if self._round is None:  # before the errand is queued: it fails where no descriptor is left
                    current = self._round = _Round(self._silence, self._hedging, self._have_connected)
                self._queue.append(errand)
                if current is None:
                    self._round.wake()
                    return
            self._have_carried(current)
        except BaseException as error:
            # Interrupted, it may have been before a thread was asked for, and others trust that there is one.
            if current is not None and not isinstance(error, RuntimeError):
                with contextlib.suppress(RuntimeError):  # which those who wait have been told
                    self._have_carried(current)
            raise

    def forget(self) -> None:
        """In a forked child: close our copies of what wakes the parent's thread. Takes no lock, for it may be held."""
        if self._round is not None:
            self._round.close()

    def _have_carried(self, current: _Round) -> None:
        """Have a thread carry this round, unless one does already."""
        try:
            self._workers.run(partial(self._carry, current))
        except RuntimeError as error:
            if self._claim(current):
                with self._lock:
                    self._round = None
                    stranded = list(self._queue)  # others submitted meanwhile, and trust in this round
                    self._queue.clear()
                current.close()
                for errand in stranded:
                    errand.fail(error)
            raise

    def _claim(self, current: _Round) -> bool:
        """Whether this round is the caller's, to be carried or to be ended."""
        with self._lock:
            claimed, current.claimed = current.claimed, True
            return not claimed

    def _carry(self, current: _Round) -> None:
        if not self._claim(current):
            return
        connects = False  # itself: there are no threads for that
        while True:
            longest = math.inf
            while (errand := self._next(current)) is not None:
                try:
                    # Who has connections in use must not wait for another: two who do could wait for each other.
                    current.begin(errand, wait=not current.load, connect=connects)
                except PoolIsFull:
                    self._put_back(errand, current)
                    longest = _TRY_AGAIN
                    break
                except NoneIdle:
                    self._put_back(errand, current)
                    connects = not self._have_connected(*self._unconnected()) or self._workers.are_wanted
                    break
            else:
                if not current.load:
                    break
            if current.load or not connects:
                current.receive(longest)
                connects = False
        current.close()

    def _put_back(self, errand: Errand, current: _Round) -> None:
        with self._lock:
            self._queue.appendleft(errand)
            current.sleeping = True

    def _unconnected(self) -> list[Errand]:
        """Those in the queue for which connections are to be opened now."""
        with self._lock:
            return list(itertools.islice(self._queue, self._connecting, _CONNECTING))

    def _have_connected(self, *errands: Errand) -> bool:
        """Have workers open connections for these errands, or for who comes first; False if there are no threads."""
        for errand in errands:
            with self._lock:
                self._connecting += 1
            try:
                self._workers.run(partial(self._connect, errand))
            except RuntimeError:
                with self._lock:
                    self._connecting -= 1
                return False
        return True

    def _connect(self, errand: Errand) -> None:
        errand.connect()
        with self._lock:
            self._connecting -= 1
            if self._round is not None:
                self._round.wake(soon=True)

    def _next(self, current: _Round) -> Errand | None:
        """The next errand, if there is one and room for it; without any work left, the end of the round."""
        with self._lock:
            if self._queue and current.load < self._most:
                return self._queue.popleft()
            current.sleeping = True
            if not current.load:
                self._round = None
            return None


class _Round:
    """The errands that are on their way. All but ``wake`` is the carrying thread's."""

    def __init__(self, silence: float, hedging: Hedging, connect: Callable[[Errand], bool]) -> None:
        self._silence = silence
        self._hedging = hedging
        self._connect = connect  # has a connection opened
        self._poll = select.poll()
        self._wake_read, self._wake_write = have_descriptors(os.pipe, "small objects cannot be fetched")
        os.set_blocking(self._wake_read, False)
        self._poll.register(self._wake_read, select.POLLIN)
        self._scratch = bytearray(_SCRATCH)
        self._under_way: dict[int, tuple[Errand, Exchange]] = {}  # by descriptor, the oldest first
        # Not yet hedged, by when they were sent, or had a connection opened for that; the oldest first. Whose answer
        # has begun is taken out, wherever it stands: it would be kept alive until all before it are answered.
        self._unanswered: dict[Exchange, tuple[float, Errand]] = {}
        self._over: list[Errand] = []  # not concluded
        self.claimed = False  # under the carrier's lock
        self.sleeping = False  # under the carrier's lock: waiting, and not yet woken

    @property
    def load(self) -> int:
        return len(self._under_way)

    def begin(self, errand: Errand, *, wait: bool, connect: bool) -> None:
        exchange = errand.begin(wait=wait, connect=connect)
        if exchange is None:
            return
        self._watch(exchange.fileno(), errand, exchange)
        self._unanswered[exchange] = exchange.started, errand

    def _watch(self, descriptor: int, errand: Errand, exchange: Exchange) -> None:
        self._poll.register(descriptor, select.POLLIN)
        self._under_way[descriptor] = errand, exchange

    def _forget(self, descriptor: int) -> None:
        del self._under_way[descriptor]
        self._poll.unregister(descriptor)

    def wake(self, *, soon: bool = False) -> None:
        """There is more to take; ``soon``: by a thread that may be about to sleep because there was not."""
        if self.sleeping or soon:
            os.write(self._wake_write, b"\0")
            self.sleeping = False  # last, for who is interrupted before

    def receive(self, longest: float) -> None:
        """Wait until an answer goes on, there is more to take, silence has lasted too long, or for ``longest`` seconds;
        receive what is here."""
        now = time.perf_counter()
        self._hedge(now)
        oldest = next((exchange for _, exchange in self._under_way.values()), None)  # None: connections are opened
        end = oldest.started + self._silence if oldest is not None else math.inf
        first = next(iter(self._unanswered.values()), None)
        due = first[0] + self._hedging.delay if first is not None else end
        left = min(end - now, due - now, longest)
        ready = self._poll.poll(max(0.0, left * 1000) if left < math.inf else None)
        now = time.perf_counter()
        self.sleeping = False
        if oldest is not None and now >= end:  # however much of the others is here
            oldest.abort()  # which makes it readable
        for descriptor, _ in ready:
            if descriptor == self._wake_read:
                os.read(descriptor, 4096)
            elif (entry := self._under_way.get(descriptor)) is not None:
                self._proceed(descriptor, *entry, now)
                if len(self._over) >= _AT_ONCE:
                    self._conclude()
        self._conclude()

    def _proceed(self, descriptor: int, errand: Errand, exchange: Exchange, now: float) -> None:
        if not exchange.answering:
            if not exchange.has_begun(descriptor):
                return
            self._unanswered.pop(exchange, None)
            self._hedging.note(now - exchange.started)
            other = exchange.settle_on(descriptor)
            if other is not None:
                self._forget(other)
                exchange.drop_spare()
        # Before another round finds the connection in the pool, it is no longer watched: this thread does both.
        if errand.proceed(self._scratch):
            self._forget(descriptor)
            self._over.append(errand)

    def _conclude(self) -> None:
        for errand in self._over:
            errand.conclude()
        self._over.clear()

    def _hedge(self, now: float) -> None:
        """Send again what should have been answered by ``now``; each request has one chance of that."""
        while self._unanswered:
            exchange, (since, errand) = next(iter(self._unanswered.items()))
            if now < since + self._hedging.delay:
                return
            del self._unanswered[exchange]
            first = since == exchange.started
            if first and not self._hedging.spend():
                continue
            try:
                descriptor = exchange.hedge()
            except NoneIdle:
                if first and self._connect(errand):
                    self._unanswered[exchange] = now, errand
                continue
            if descriptor is not None:
                self._watch(descriptor, errand, exchange)

    def close(self) -> None:
        os.close(self._wake_read)
        os.close(self._wake_write)
