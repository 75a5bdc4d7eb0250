"""Threads that send and receive requests: started on demand, and ended after they have been idle for a while.

``Workers`` owns the threads. A ``WorkerShare`` is one client's use of them, which can be closed while other clients use
them, too. A ``Lane`` is the share of one purpose: its jobs start in order, at most ``width`` at a time, so that one
large download cannot take every thread, and bytes that are requested first arrive first.

Threads are not started by ``threading``, which waits until each of them runs: while the first ones keep the processors
busy, thirty such waits took 75 ms. An interpreter that exits does not wait for such threads, nor for a transfer whose
result is no longer needed. A forked child has none of the threads and starts its own; it never touches the parent's
objects.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

from s3torchconnector._activity import activity
from s3torchconnector._threads import start_thread

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_Job = Callable[[], object]
_STAYS = 20.0  # seconds after which an idle thread ends
_numbers = itertools.count(1)  # of the threads of this process


class Threads(Protocol):
    """What calls jobs on threads: ``Workers``, or a share of them."""

    @property
    def are_wanted(self) -> bool:
        """Whether threads are wanted by jobs that have none, or by ``close``."""

    def submit(self, job: _Job) -> None:
        """Have a thread call ``job``, which must not raise.

        Raises:
            RuntimeError: closed, or no thread can be started.
        """


class IdleResources(Protocol):
    """Things that are kept while they are idle, and closed after a while."""

    @property
    def has_idle(self) -> bool:
        """Whether there are any."""

    def close_old(self) -> None:
        """Close those that have been idle for long. Does not raise."""


class Workers:
    """At most ``limit`` threads; the limit may be changed. ``submit`` never blocks: jobs without a thread are queued.

    ``when_wanted`` is called when threads that wait for something are wanted for other jobs.
    """

    def __init__(self, limit: int, when_wanted: Callable[[], None] = lambda: None) -> None:
        self.limit = limit
        self._when_wanted = when_wanted
        self._lock = threading.Lock()
        self._promised: SimpleQueue[_Job | None] = SimpleQueue()  # one entry for each idle thread that was claimed
        self._backlog: deque[_Job] = deque()
        self._idle = 0
        self._alive: set[object] = set()  # one entry for each thread
        self._ended = threading.Condition(self._lock)
        self._own = threading.local()  # has ``entry`` on our threads
        self._closed = False
        self._resources: IdleResources | None = None

    def close_old_of(self, resources: IdleResources) -> None:
        """Call ``resources.close_old`` from time to time, while there are threads and it ``has_idle`` things.

        An owner that begins to have idle things calls ``ensure_one``.
        """
        self._resources = resources

    def ensure_one(self) -> None:
        """Make sure that there is a thread that will become idle and then close old things; none if no thread can be
        started.
        """
        with self._lock:
            if self._alive or self._closed:
                return
        with contextlib.suppress(RuntimeError):
            self.submit(_nothing)

    @property
    def are_wanted(self) -> bool:
        """Whether threads are wanted by jobs that have none, or by ``close``."""
        return bool(self._backlog) or self._closed

    def __repr__(self) -> str:
        idle, alive = self._idle, len(self._alive)
        busy, closed = max(0, alive - idle), ", closed" if self._closed else ""
        return f"<Workers [{busy} busy, {idle} idle, max {self.limit}, {len(self._backlog)} jobs queued{closed}]>"

    def submit(self, job: _Job) -> None:
        """Have a thread call ``job``. Its errors are only logged."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the S3 client is closed")
            if self._idle:
                self._idle -= 1
                self._promised.put(job)
            elif len(self._alive) < self.limit:
                entry = object()
                try:
                    start_thread(f"worker {next(_numbers)}", self._work, entry, [job])
                except RuntimeError:  # no more threads can be started: one that is there does it later
                    if not self._alive:
                        raise
                    self._backlog.append(job)
                else:
                    self._alive.add(entry)
            else:
                self._backlog.append(job)
        if self._backlog:
            self._when_wanted()

    @activity("closes {}", "self")
    def close(self) -> None:
        """End the threads after they have done the jobs that were submitted, and wait for that."""
        with self._lock:
            self._closed = True
            for _ in range(self._idle):
                self._promised.put(None)
            self._idle = 0
        self._when_wanted()
        with self._lock:
            own = {getattr(self._own, "entry", None)}
            while self._alive - own:
                self._ended.wait()

    def _work(self, entry: object, first: list[_Job]) -> None:
        job: _Job | None = first.pop()  # the interpreter keeps a thread's arguments until the thread ends
        self._own.entry = entry
        with self._lock:
            self._alive.add(entry)  # also if ``submit`` was interrupted
        while job is not None:
            try:
                job()
            except BaseException:  # unexpected; the thread, and those who wait for its end, go on
                _log.exception("a job of a worker failed")
            del job  # an idle thread keeps nothing alive
            job = self._next(entry)

    def _next(self, entry: object) -> _Job | None:
        """Wait for the next job; None if the thread is to end."""
        with self._lock:
            if self._backlog:
                return self._backlog.popleft()
            if self._closed:
                self._end(entry)
                return None
            self._idle += 1
        while True:
            try:
                job = self._promised.get(timeout=_STAYS)
            except Empty:
                if self._resources is not None:
                    self._resources.close_old()
                with self._lock:
                    # In one step with the end of the thread, for ``ensure_one``. If none is idle, a job was promised.
                    is_kept = self._idle == 1 and self._resources is not None and self._resources.has_idle
                    if self._idle and not is_kept:
                        self._idle -= 1
                        self._end(entry)
                        return None
            else:
                if job is None:
                    with self._lock:
                        self._end(entry)
                return job

    def _end(self, entry: object) -> None:
        """Under the lock: there is one thread less."""
        self._alive.remove(entry)
        self._ended.notify_all()


def _nothing() -> None:
    pass


class Lane:
    """Jobs that start in the order in which they were submitted, at most ``width`` at a time."""

    def __init__(self, workers: Threads, width: int) -> None:
        self._workers = workers
        self._width = width
        self._lock = threading.Lock()
        self._queue: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._running = 0

    def __repr__(self) -> str:
        return f"<Lane [{self._running} jobs running, max {self._width}, {len(self._queue)} queued]>"

    def submit(self, job: Callable[[], _T]) -> Future[_T]:
        """Have a worker call ``job``; the future has its result, and can be cancelled until the job starts."""
        future: Future[_T] = Future()
        with self._lock:
            self._queue.append((future, job))
            start = self._running < self._width
            if start:
                self._running += 1
        if start:
            try:
                self._workers.submit(self._drain)
            except BaseException as error:
                future.cancel()
                # If it was interrupted, the thread comes. If it is closed or no thread can be started, none does.
                if isinstance(error, RuntimeError):
                    with self._lock:
                        self._running -= 1
                raise
        return future

    def _drain(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._running -= 1
                    return
                future, job = self._queue.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    result = job()
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del result
            del future, job
