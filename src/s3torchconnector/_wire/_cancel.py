"""Giving up work that runs on other threads: one token for all requests that serve one purpose.

Whoever starts requests keeps the token; each request enters its connection while it uses the socket. ``cancel()``
closes those sockets under their readers, so that a blocked receive returns at once, and makes every later request
with this token fail at its start. After all of them ended (wait for their futures), nothing touches the
destination memory any more.
"""

from __future__ import annotations

import threading
from typing import Protocol

from s3torchconnector._errors import S3Exception


class Abortable(Protocol):
    """What ``CancelToken`` needs of a connection."""

    def abort(self) -> None:
        """Make blocked and later operations on the socket fail; callable from any thread."""


class CancelledByCaller(S3Exception):
    """The reason why a request was given up is elsewhere: its result is no longer wanted. Never reaches users."""


class CancelToken:
    """Cancels a group of requests, at most once.

    Attributes:
        excused: seconds that these requests have spent on waiting for the program, which no deadline counts.
    """

    def __init__(self) -> None:
        self.excused = 0.0
        self._lock = threading.Lock()
        self._cancelled = False
        self._sleepers: threading.Event | None = None  # made by the first wait: most tokens never need one
        self._active: set[Abortable] = set()

    def cancel(self) -> None:
        """Give up: abort what is under way, refuse what comes later. Does not wait."""
        with self._lock:
            self._cancelled = True
            if self._sleepers is not None:
                self._sleepers.set()
            # Under the lock, so that no connection is aborted after it went on to serve another request.
            for connection in self._active:
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
        sleepers = threading.Event()  # not under the lock: garbage collection, which may cancel, strikes at such places
        with self._lock:
            self.check()
            self._sleepers = sleepers = self._sleepers or sleepers
        sleepers.wait(seconds)
        self.check()

    def enter(self, connection: Abortable) -> None:
        """From now until ``leave``, ``cancel()`` aborts this connection."""
        with self._lock:
            self.check()
            self._active.add(connection)

    def leave(self, connection: Abortable) -> None:
        """The connection is not used for this purpose any more."""
        with self._lock:
            self._active.discard(connection)
