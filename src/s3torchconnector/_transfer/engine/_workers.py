"""Threads that carry requests, started on demand and ended when they have been idle for long.

``Workers`` owns the threads. A ``WorkerShare`` is the use that one client makes of them, which can be closed while
others use them as well. A ``Lane`` is one purpose's share: its jobs start in order, at most ``width`` at a time, so
that one large download cannot take every thread, and what is asked for first arrives first.

Threads are started by ``_thread`` and not by ``threading``, which waits until each of them runs: while the first ones
keep the processors busy with what they receive, thirty such waits took 75 ms. An interpreter that exits does not wait
for such threads, nor for a transfer whose result nobody wants. After a fork the child has none of them and makes its
own; it never touches the parent's objects.
"""

from __future__ import annotations

import _thread
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_Job = Callable[[], object]
_STAYS = 20.0  # seconds that a thread is idle until it ends


class Threads(Protocol):
    """What needs threads for jobs asks this of ``Workers`` or of a share of them."""

    @property
    def are_wanted(self) -> bool:
        """Whether threads are wanted by work that has none, or by ``close``."""

    def run(self, job: _Job) -> None:
        """Have a thread call ``job``, which must not raise.

        Raises:
            RuntimeError: closed, or there is no thread to be had.
        """


class Keeper(Protocol):
    """Who keeps idle things that have to be closed after a while."""

    @property
    def has_idle(self) -> bool:
        """Whether there are any."""

    def close_old(self) -> None:
        """Close those that have been idle for long. Does not raise."""


class Workers:
    """At most ``limit`` threads, which may be changed. ``run`` never blocks: what finds no thread waits its turn.

    ``when_wanted`` is called when threads that wait for something are wanted for other things.
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
        self._keeper: Keeper | None = None

    def look_after(self, keeper: Keeper) -> None:
        """Call ``keeper.close_old`` from time to time, as long as it ``has_idle`` things and there are threads.

        Whoever begins to have idle things calls ``ensure_one``.
        """
        self._keeper = keeper

    def ensure_one(self) -> None:
        """Have a thread that will be idle, and look after what is; without it if no thread is to be had."""
        with self._lock:
            if self._alive or self._closed:
                return
        with contextlib.suppress(RuntimeError):
            self.run(_nothing)

    @property
    def are_wanted(self) -> bool:
        """Whether threads are wanted by work that has none, or by ``close``."""
        return bool(self._backlog) or self._closed

    def run(self, job: _Job) -> None:
        """Have a thread call ``job``, whose errors nobody is told of, but for the log."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the S3 client is closed")
            if self._idle:
                self._idle -= 1
                self._promised.put(job)
            elif len(self._alive) < self.limit:
                entry = object()
                try:
                    _thread.start_new_thread(self._work, (entry, job))
                except RuntimeError:  # no more threads to be had: one that is there does it later
                    if not self._alive:
                        raise
                    self._backlog.append(job)
                else:
                    self._alive.add(entry)
            else:
                self._backlog.append(job)
        if self._backlog:
            self._when_wanted()

    def close(self) -> None:
        """End the threads once they have done what was asked of them, and wait for that."""
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

    def _work(self, entry: object, job: _Job | None) -> None:
        self._own.entry = entry
        with self._lock:
            self._alive.add(entry)  # also where who started this thread was interrupted before doing that
        while job is not None:
            try:
                job()
            except BaseException:  # nobody thought of it; the thread, and who waits for its end, are others' as well
                _log.exception("a job of a worker failed")
            del job  # an idle thread keeps nothing alive
            job = self._next(entry)

    def _next(self, entry: object) -> _Job | None:
        """What to do next, when there is something; None where the thread has ended."""
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
                if self._keeper is not None:
                    self._keeper.close_old()
                with self._lock:
                    # In one step with the end of the thread, for ``ensure_one``. No idle ones: it was promised a job.
                    is_kept = self._idle == 1 and self._keeper is not None and self._keeper.has_idle
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
    """Jobs that start in the order they were submitted, at most ``width`` running at a time."""

    def __init__(self, workers: Threads, width: int) -> None:
        self._workers = workers
        self._width = width
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._running = 0

    def submit(self, job: Callable[[], _T]) -> Future[_T]:
        """Call ``job`` on a worker; the future has its result, and can be cancelled until the job starts."""
        future: Future[_T] = Future()
        with self._lock:
            self._waiting.append((future, job))
            start = self._running < self._width
            if start:
                self._running += 1
        if start:
            try:
                self._workers.run(self._drain)
            except BaseException as error:
                future.cancel()
                # Interrupted while a thread was being started: it comes. Closed, or no thread to be had: nobody does.
                if isinstance(error, RuntimeError):
                    with self._lock:
                        self._running -= 1
                raise
        return future

    def _drain(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._running -= 1
                    return
                future, job = self._waiting.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    result = job()
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del result
            del future, job
