"""Many small requests on one thread.

A thread for each small object spends more time on taking the interpreter lock in turns than on the object, and even a
second thread does: three system calls, and as many switches. The carrier sends many requests, waits for whichever
answer goes on first, and receives what is here of it, without ever waiting for one answer while others are there.

Contract: ``submit`` queues an errand; the carrier calls its ``begin``, waits until its exchange is readable, calls its
``proceed`` until that says that it is over, and soon after that its ``conclude``, for several errands in a row. The
carrier runs on a worker thread while there are errands, and takes new ones between two receptions. An exchange that is
not over after ``silence`` seconds is aborted, so that its errand can try again elsewhere; before, one whose answer does
not begin in the usual time is sent again (``_wire/_hedging``).

An error that nobody thought of ends a round, never what it carries: that goes on on workers, and a new round begins.

To open a connection may take long, and is waited for by workers: they put it into the pool, where the carrier finds it.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import threading
from collections import deque
from functools import partial

from s3torchconnector._transfer.engine._poll_loop import MultiplexedRequest, PollLoop
from s3torchconnector._transfer.engine._workers import Threads
from s3torchconnector._wire import Hedging, NoIdleConnection, PoolIsFull

_CONNECTING = 32  # connections that are opened at a time
_TRY_AGAIN = 10e-3  # seconds after which a full pool may have room: others make it, and tell nobody
_log = logging.getLogger(__name__)


class Multiplexer:
    """Runs errands on at most one of ``workers``' threads, ``most`` on their way at a time."""

    def __init__(self, workers: Threads, most: int, silence: float, hedging: Hedging) -> None:
        self._workers = workers
        self._most = most
        self._silence = silence
        self._hedging = hedging
        self._lock = threading.Lock()
        self._queue: deque[MultiplexedRequest] = deque()
        self._connecting = 0  # connections that are being opened
        self._round: PollLoop | None = None  # while a thread is at it

    def submit(self, request: MultiplexedRequest) -> None:
        """Have ``request`` begun and finished. Does not wait.

        Raises:
            RuntimeError: the client is closed, or there is no thread to be had.
            S3ConnectionError: there is no descriptor to be had.
        """
        current = None
        try:
            with self._lock:
                if self._round is None:  # before the errand is queued: it fails where no descriptor is left
                    current = self._round = PollLoop(self._silence, self._hedging, self._have_connected)
                self._queue.append(request)
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

    def _have_carried(self, current: PollLoop) -> None:
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
                for request in stranded:
                    request.fail(error)
            raise

    def _claim(self, current: PollLoop) -> bool:
        """Whether this round is the caller's, to be carried or to be ended."""
        with self._lock:
            claimed, current.claimed = current.claimed, True
            return not claimed

    def _carry(self, current: PollLoop) -> None:
        if not self._claim(current):
            return
        try:
            self._carry_on(current)
        except BaseException:  # whatever it is, nobody may wait for ever
            _log.exception("the thread that carries small reads met an error that nobody thought of, and begins anew")
            self._begin_anew(current)
        current.close()

    def _begin_anew(self, broken: PollLoop) -> None:
        waiting: list[MultiplexedRequest] = []
        with self._lock:
            if self._round is broken:
                self._round = None
                waiting = list(self._queue)
                self._queue.clear()
        broken.abandon()
        for request in waiting:
            try:
                self.submit(request)
            except Exception as error:
                request.fail(error)

    def _carry_on(self, current: PollLoop) -> None:
        connects = False  # itself: there are no threads for that
        while True:
            longest = math.inf
            while (request := self._next(current)) is not None:
                try:
                    # Who has connections in use must not wait for another: two who do could wait for each other.
                    current.begin(request, wait=not current.load, connect=connects)
                except PoolIsFull:
                    self._put_back(request, current)
                    longest = _TRY_AGAIN
                    break
                except NoIdleConnection:
                    self._put_back(request, current)
                    connects = not self._have_connected(*self._unconnected()) or self._workers.are_wanted
                    break
                except Exception:
                    _log.exception("a small read could not be begun")
                    request.go_on()
            else:
                if not current.load:
                    break
            if current.load or not connects:
                current.receive(longest)
                connects = False

    def _put_back(self, request: MultiplexedRequest, current: PollLoop) -> None:
        with self._lock:
            self._queue.appendleft(request)
            current.sleeping = True

    def _unconnected(self) -> list[MultiplexedRequest]:
        """Those in the queue for which connections are to be opened now."""
        with self._lock:
            return list(itertools.islice(self._queue, self._connecting, _CONNECTING))

    def _have_connected(self, *requests: MultiplexedRequest) -> bool:
        """Have workers open connections for these errands, or for who comes first; False if there are no threads."""
        for request in requests:
            with self._lock:
                self._connecting += 1
            try:
                self._workers.run(partial(self._connect, request))
            except RuntimeError:
                with self._lock:
                    self._connecting -= 1
                return False
        return True

    def _connect(self, request: MultiplexedRequest) -> None:
        try:
            request.connect()
        finally:
            with self._lock:
                self._connecting -= 1
                if self._round is not None:
                    self._round.wake(soon=True)

    def _next(self, current: PollLoop) -> MultiplexedRequest | None:
        """The next errand, if there is one and room for it; without any work left, the end of the round."""
        with self._lock:
            if self._queue and current.load < self._most:
                return self._queue.popleft()
            current.sleeping = True
            if not current.load:
                self._round = None
            return None
