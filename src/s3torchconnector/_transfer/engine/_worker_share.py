"""The threads as one client uses them, while other clients use them as well."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from s3torchconnector._activity import activity
from s3torchconnector._transfer.engine._workers import Workers

_Job = Callable[[], object]


class WorkerShare:
    """One client's use of ``workers``: closing it waits for the client's own jobs, and leaves the threads running."""

    def __init__(self, workers: Workers, when_wanted: Callable[[], None]) -> None:
        self._workers = workers
        self._when_wanted = when_wanted
        self._lock = threading.Lock()
        self._ended = threading.Condition(self._lock)
        self._jobs: set[object] = set()  # one entry for each
        self._own = threading.local()  # has ``entry`` on a thread that does one of them
        self._closed = False

    @property
    def are_wanted(self) -> bool:
        """Whether threads are wanted by jobs that have none, or by ``close``."""
        return self._closed or self._workers.are_wanted

    def __repr__(self) -> str:
        closed = ", closed" if self._closed else ""
        return f"<WorkerShare [{len(self._jobs)} jobs of this client{closed} | {self._workers!r}]>"

    def submit(self, job: _Job) -> None:
        """Have a thread call ``job``, which must not raise."""
        entry = object()
        try:
            with self._lock:
                if self._closed:
                    raise RuntimeError("the S3 client is closed")
                self._jobs.add(entry)
            self._workers.submit(partial(self._do, entry, job))
        except BaseException:  # if this was interrupted, the job may be done all the same
            self._remove(entry)
            raise

    @activity("closes {}", "self")
    def close(self) -> None:
        """Take no more jobs, and wait until those that were taken are done."""
        with self._lock:
            self._closed = True
        self._when_wanted()
        with self._lock:
            own = {getattr(self._own, "entry", None)}
            while self._jobs - own:
                self._ended.wait()

    def _do(self, entry: object, job: _Job) -> None:
        with self._lock:
            self._jobs.add(entry)  # also if ``submit`` was interrupted
        self._own.entry = entry
        try:
            job()
        finally:
            self._own.entry = None
            self._remove(entry)

    def _remove(self, entry: object) -> None:
        with self._lock:
            self._jobs.discard(entry)
            if self._closed:
                self._ended.notify_all()
