"""Giving up work that runs on other threads: one token for all requests that serve one purpose.

Whoever starts requests keeps the token; each request enters its connection while it uses the socket. ``cancel()``
closes those sockets under their readers, so that a blocked receive returns at once, and makes every later request
with this token fail at its start. After all of them ended (wait for their futures), nothing touches the
destination memory any more.

``cancel`` may come from a garbage collection, which strikes at any moment and on any thread: on one that has the
token's lock, too. So the lock is re-entrant, each section under it is one change that is complete or has not begun, and
nothing under it waits for anything else.
"""

from __future__ import annotations

import threading
from typing import Protocol

from s3torchconnector._errors import S3Exception
from s3torchconnector._latch import Latch


class Abortable(Protocol):
    """What ``CancelToken`` needs of a connection, or of whatever else is waited for."""

    def abort(self) -> None:
        """Make blocked and later operations on the socket fail. Waits for nothing; callable from any thread."""


class CancelledByCaller(S3Exception):
    """The reason why a request was given up is elsewhere: its result is no longer wanted. Never reaches users."""


class CancelToken:
    """Cancels a group of requests, at most once.

    Attributes:
        excused: seconds that these requests have spent on waiting for the program, which no deadline counts.
    """

    def __init__(self) -> None:
        self.excused = 0.0
        self._lock = threading.RLock()  # not a try and a queue: an interrupt behind the try would keep it for ever
        self._cancelled = False
        self._active: set[Abortable] = set()

    def cancel(self) -> None:
        """Give up: abort what is under way, refuse what comes later. Does not wait."""
        self._cancelled = True
        with self._lock:
            # Under the lock, so that no connection is aborted after it went on to serve another request.
            for connection in list(self._active):
                connection.abort()

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def check(self) -> None:
        """Raise ``CancelledByCaller`` once cancelled."""
        if self._cancelled:
            raise CancelledByCaller("cancelled: the result is no longer wanted")

    def wait(self, seconds: float) -> None:
        """Sleep that ends early, with ``CancelledByCaller``, when the token is cancelled."""
        sleeper = _Sleeper()
        try:
            self.enter(sleeper)
            sleeper.latch.wait(seconds)
        finally:
            self.leave(sleeper)
        self.check()

    def enter(self, connection: Abortable) -> None:
        """From now until ``leave``, ``cancel()`` aborts this connection."""
        with self._lock:
            self._active.add(connection)
            if self._cancelled:  # asked behind the addition, as ``cancel`` does it the other way round
                self._active.discard(connection)
                self.check()

    def leave(self, connection: Abortable) -> None:
        """The connection is not used for this purpose any more."""
        with self._lock:
            self._active.discard(connection)


class _Sleeper:
    """Who pauses, until the token is cancelled."""

    def __init__(self) -> None:
        self.latch = Latch()

    def abort(self) -> None:
        self.latch.open()
