"""Cancelling requests that run on other threads: one token for all requests that serve one purpose.

The code that starts requests keeps the token. Each request registers its connection with ``enter`` while it uses the
socket. ``cancel()`` aborts those connections, so that a blocked receive returns at once, and makes every later request
with this token fail at its start. Once all of them have ended (wait for that), nothing touches the destination memory.

A garbage collection may call ``cancel``, at any moment and on any thread, including one that holds the token's lock.
So the lock is re-entrant, each section under it is a single change that has happened or has not, and nothing under it
waits for anything else.
"""

from __future__ import annotations

import threading
from typing import Protocol

from s3torchconnector._activity import activity
from s3torchconnector._errors import S3Exception
from s3torchconnector._latch import Latch


class Abortable(Protocol):
    """What ``CancelToken`` needs of a connection, or of anything else that a thread waits for."""

    def abort(self) -> None:
        """Make blocked and later operations on the socket fail. Waits for nothing; callable from any thread."""


class CancelledByCaller(S3Exception):
    """A request was cancelled because its result is no longer wanted. Never reaches users."""


class CancelToken:
    """Cancels a group of requests, at most once.

    Attributes:
        paused: seconds for which these requests have waited for the program to read; deadlines do not count them.
    """

    def __init__(self) -> None:
        self.paused = 0.0
        self._lock = threading.RLock()  # acquired by ``with`` only: an interrupt cannot leave it locked
        self._cancelled = False
        self._active: set[Abortable] = set()

    def cancel(self) -> None:
        """Abort the requests under way, and refuse later ones. Does not wait."""
        self._cancelled = True
        with self._lock:
            # Under the lock, so that no connection is aborted after it has begun to serve another request.
            for connection in list(self._active):
                connection.abort()

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def check(self) -> None:
        """Raise ``CancelledByCaller`` once cancelled."""
        if self._cancelled:
            raise CancelledByCaller("cancelled: the result is no longer wanted")

    @activity("pauses before it is sent")
    def wait(self, seconds: float) -> None:
        """Sleep; ends early, with ``CancelledByCaller``, when the token is cancelled."""
        sleeper = _Sleeper()
        try:
            self.enter(sleeper)
            sleeper.latch.wait(seconds)
        finally:
            self.leave(sleeper)
        self.check()

    def enter(self, connection: Abortable) -> None:
        """Have ``cancel()`` abort this connection, until ``leave``."""
        with self._lock:
            self._active.add(connection)
            if self._cancelled:  # checked after the addition; ``cancel`` does both in the other order
                self._active.discard(connection)
                self.check()

    def leave(self, connection: Abortable) -> None:
        """The connection is no longer used for this purpose."""
        with self._lock:
            self._active.discard(connection)


class _Sleeper:
    """A thread that sleeps until the token is cancelled."""

    def __init__(self) -> None:
        self.latch = Latch()

    def abort(self) -> None:
        self.latch.open()
