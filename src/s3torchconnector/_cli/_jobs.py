"""Work on many objects at a time: as many jobs on threads as there is room for, while one thread finds what to do.

The threads are no threads that an exit waits for, so that Ctrl-C ends a command even if a server does not respond.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from types import TracebackType

from s3torchconnector._transfer import Lane, Workers

_SECONDS_TO_STOP = 2.0
_LOOK_AGAIN = 0.5  # seconds


class StoppedError(Exception):
    """A job gives up, because the command is ending."""


class Jobs:
    """Calls functions on threads. One thread submits; at the end of a ``with`` block, all are done.

    If the block is left by an exception (Ctrl-C, say), ``stopped`` is true from then on, and the jobs under way get a
    moment to find that out.

    Args:
        at_once: most jobs under way at a time.
        most_bytes: most bytes that they may hold together. A job that needs more runs alone.

    Attributes:
        stopped: whether jobs are to give up.
    """

    def __init__(self, at_once: int, most_bytes: int) -> None:
        self.stopped = False
        self._at_once = at_once
        self._most_bytes = most_bytes
        self._workers = Workers(at_once)
        self._lane = Lane(self._workers, at_once)
        self._changed = threading.Condition()
        self._running = 0
        self._bytes = 0
        self._error: BaseException | None = None

    def check(self) -> None:
        """Called by jobs, from time to time.

        Raises:
            StoppedError: they are to give up.
        """
        if self.stopped:
            raise StoppedError("the command is ending")

    def submit(self, job: Callable[[], None], size: int = 0) -> None:
        """Wait for room, then have a thread call ``job``, which holds about so many bytes.

        Raises:
            BaseException: what a job has raised. There is no use in others then.
        """
        with self._changed:
            self._wait_for(partial(self._has_room, size))
            self._raise_error()
            self._running += 1
            self._bytes += size
        self._lane.submit(partial(self._do, job, size))

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait, and look for Ctrl-C from time to time: Python does not see one that comes just before it waits."""
        while not self._changed.wait_for(condition, _LOOK_AGAIN):
            pass

    def _has_room(self, size: int) -> bool:
        if self._error is not None or not self._running:
            return True
        return self._running < self._at_once and self._bytes + size <= self._most_bytes

    def _do(self, job: Callable[[], None], size: int) -> None:
        error: BaseException | None = None
        try:
            if not self.stopped:
                job()
        except BaseException as raised:
            error = raised
        with self._changed:
            self._running -= 1
            self._bytes -= size
            self._error = self._error or error
            self._changed.notify_all()

    def _raise_error(self) -> None:
        if self._error is not None:
            self.stopped = True
            raise self._error

    def __enter__(self) -> Jobs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            with self._changed:
                self._wait_for(lambda: not self._running)
                self._raise_error()
            self._workers.close()
            return
        self.stopped = True
        until = time.monotonic() + _SECONDS_TO_STOP
        with self._changed:
            self._changed.wait_for(lambda: not self._running, until - time.monotonic())
