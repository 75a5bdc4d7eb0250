"""Many small requests on one thread.

A thread for each small object spends more time waiting for the interpreter lock than on the object. Even a second
thread does: three system calls, and as many switches. The multiplexer sends many requests, waits for the next response
to arrive, and receives the bytes that have arrived. It never waits for one response while bytes of others have arrived.

Contract: ``submit`` queues a request. The multiplexer calls its ``send``, waits until its exchange is readable, calls
its ``receive`` until that reports the end, and soon after that its ``notify``, for several requests in a row. A poll
loop runs on a worker thread while there are requests, and takes new ones between two receptions. An exchange that is
not over after ``silence`` seconds is aborted, so that its request can be tried again by a worker. Before that, a
request whose response does not begin in the usual time is sent again (``_wire/_hedging``).

An unexpected error ends a poll loop, but none of its requests: workers continue these, and a new loop is started.

Opening a connection may take long. Workers wait for that, and put it into the pool, where the multiplexer finds it.
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
_TRY_AGAIN = 10e-3  # seconds after which a full pool may have room: others make room without a notice
_log = logging.getLogger(__name__)


class Multiplexer:
    """Sends and receives requests on at most one of ``workers``' threads, ``most`` of them under way at a time."""

    def __init__(self, workers: Threads, most: int, silence: float, hedging: Hedging) -> None:
        self._workers = workers
        self._most = most
        self._silence = silence
        self._hedging = hedging
        self._lock = threading.Lock()
        self._queue: deque[MultiplexedRequest] = deque()
        self._connecting = 0  # connections that are being opened
        self._loop: PollLoop | None = None  # while a thread runs it, or is about to

    def __repr__(self) -> str:
        loop = self._loop
        load = 0 if loop is None else loop.load
        return (
            f"<Multiplexer [{load} requests under way, max {self._most}, {len(self._queue)} queued, "
            f"{self._connecting} connections opening]>"
        )

    def requests(self) -> list[str]:
        """What is under way, the oldest first, and what is queued. Takes no lock."""
        loop = self._loop
        queued = [f"{request!r}: queued" for request in self._queue.copy()]
        return [*([] if loop is None else loop.requests()), *queued]

    def submit(self, request: MultiplexedRequest) -> None:
        """Have ``request`` sent and received. Does not wait.

        Raises:
            RuntimeError: the client is closed, or no thread can be started.
            S3ConnectionError: no file descriptor is left.
        """
        loop = None
        try:
            with self._lock:
                if self._loop is None:  # before the request is queued: this fails if no descriptor is left
                    loop = self._loop = PollLoop(self._silence, self._hedging, self._open_connections)
                self._queue.append(request)
                if loop is None:
                    self._loop.wake()
                    return
            self._start(loop)
        except BaseException as error:
            # It may have been interrupted before a thread was asked for, and others rely on one.
            if loop is not None and not isinstance(error, RuntimeError):
                with contextlib.suppress(RuntimeError):  # the waiting threads have been notified
                    self._start(loop)
            raise

    def forget(self) -> None:
        """In a forked child: close our copies of what wakes the parent's thread. Takes no lock, for it may be held."""
        if self._loop is not None:
            self._loop.close()

    def _start(self, loop: PollLoop) -> None:
        """Have a thread run this loop, unless one does already."""
        try:
            self._workers.submit(partial(self._run, loop))
        except RuntimeError as error:
            if self._claim(loop):
                with self._lock:
                    self._loop = None
                    stranded = list(self._queue)  # others submitted these meanwhile, and rely on this loop
                    self._queue.clear()
                loop.close()
                for request in stranded:
                    request.fail(error)
            raise

    def _claim(self, loop: PollLoop) -> bool:
        """Whether it is the caller's to run this loop, or to end it."""
        with self._lock:
            claimed, loop.claimed = loop.claimed, True
            return not claimed

    def _run(self, loop: PollLoop) -> None:
        if not self._claim(loop):
            return
        try:
            self._serve(loop)
        except BaseException:  # for any error: no thread may wait forever
            _log.exception("the thread that fetches small objects met an unexpected error, and starts again")
            self._replace(loop)
        loop.close()

    def _replace(self, broken: PollLoop) -> None:
        """Have workers continue what a broken loop had under way, and a new loop send what is queued."""
        waiting: list[MultiplexedRequest] = []
        with self._lock:
            if self._loop is broken:
                self._loop = None
                waiting = list(self._queue)
                self._queue.clear()
        broken.continue_on_workers()
        for request in waiting:
            try:
                self.submit(request)
            except Exception as error:
                request.fail(error)

    def _serve(self, loop: PollLoop) -> None:
        connects = False  # on this thread: no other is free to
        while True:
            longest = math.inf
            while (request := self._next(loop)) is not None:
                try:
                    # A thread that uses connections must not wait for another connection: two such threads could wait
                    # for each other.
                    loop.send(request, wait=not loop.load, connect=connects)
                except PoolIsFull:
                    self._put_back(request, loop)
                    longest = _TRY_AGAIN
                    break
                except NoIdleConnection:
                    self._put_back(request, loop)
                    connects = not self._open_connections(*self._without_connection()) or self._workers.are_wanted
                    break
                except Exception:
                    _log.exception("the request for a small object could not be sent; a worker tries again")
                    request.continue_on_worker()
            else:
                if not loop.load:
                    break
            if loop.load or not connects:
                loop.receive(longest)
                connects = False

    def _put_back(self, request: MultiplexedRequest, loop: PollLoop) -> None:
        with self._lock:
            self._queue.appendleft(request)
            loop.sleeping = True

    def _without_connection(self) -> list[MultiplexedRequest]:
        """The queued requests for which connections are to be opened now."""
        with self._lock:
            return list(itertools.islice(self._queue, self._connecting, _CONNECTING))

    def _open_connections(self, *requests: MultiplexedRequest) -> bool:
        """Have workers open a connection for each request, which any request may use; False if none has a thread."""
        for request in requests:
            with self._lock:
                self._connecting += 1
            try:
                self._workers.submit(partial(self._connect, request))
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
                if self._loop is not None:
                    self._loop.wake(always=True)

    def _next(self, loop: PollLoop) -> MultiplexedRequest | None:
        """The next request, if there is one and room for it. Without anything left to do, the loop ends."""
        with self._lock:
            if self._queue and loop.load < self._most:
                return self._queue.popleft()
            loop.sleeping = True
            if not loop.load:
                self._loop = None
            return None
