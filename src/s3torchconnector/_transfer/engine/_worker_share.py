"""The threads as one client uses them, among others that use them as well."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from s3torchconnector._transfer.engine._workers import Workers

_Job = Callable[[], object]


class WorkerShare:
    """The use that one client makes of ``workers``: its end waits for the client's own jobs, and leaves the threads."""

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
        """Whether threads are wanted by work that has none, or by ``close``."""
        return self._closed or self._workers.are_wanted

    def run(self, job: _Job) -> None:
        """Have a thread call ``job``, which must not raise."""
        entry = object()
        try:
            with self._lock:
                if self._closed:
                    raise RuntimeError("the S3 client is closed")
                self._jobs.add(entry)
            self._workers.run(partial(self._do, entry, job))
        except BaseException:  # interrupted, it may be done all the same
            self._leave(entry)
            raise

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
            self._jobs.add(entry)  # also where who asked for it was interrupted
        self._own.entry = entry
        try:
            job()
        finally:
            self._own.entry = None
            self._leave(entry)

    def _leave(self, entry: object) -> None:
        with self._lock:
            self._jobs.discard(entry)
            if self._closed:
                self._ended.notify_all()
