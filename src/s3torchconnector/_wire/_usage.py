"""How many requests a client has sent, for those who account for them. Pure."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import count


class Tally:
    """Events of any threads, counted without a lock: a step of an iterator in C is one operation."""

    def __init__(self) -> None:
        self._events: Iterator[int] = count()
        self._looks: Iterator[int] = count()

    def note(self) -> None:
        """One more."""
        next(self._events)

    @property
    def total(self) -> int:
        """How many there were. (A look is a step too, and is taken off again.)"""
        return next(self._events) - next(self._looks)


class Usage:
    """What one client has sent in this process.

    Attributes:
        requests: that were sent, each time one was sent again included, but for hedged ones (``Hedging.sent``).
        retries: attempts that followed a failure.
    """

    def __init__(self) -> None:
        self.requests = Tally()
        self.retries = Tally()
        self._lock = threading.Lock()
        self._taken = (0, 0)

    def take(self, hedged: int) -> tuple[int, int]:
        """Requests and retries since this was called last, with the ``hedged`` requests, of which there were so many
        in all."""
        with self._lock:
            before = self._taken
            self._taken = now = (self.requests.total + hedged, self.retries.total)
        return now[0] - before[0], now[1] - before[1]
