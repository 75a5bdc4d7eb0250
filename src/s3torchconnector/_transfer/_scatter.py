"""One range received into many places, which may be chosen while it arrives."""

from __future__ import annotations

from collections.abc import Iterator


class Scatter:
    """The destination of a ``RangeFetch`` whose bytes go to ``views``, one after the other.

    The iterator is asked for its next view when the one before is full, so it can look at what has arrived and decide
    where the rest goes. A fetch that is resumed goes on where it was. For one thread at a time.
    """

    def __init__(self, views: Iterator[memoryview]) -> None:
        self._views = views
        self._view = memoryview(b"")
        self._start = self._stop = 0  # of the view, in bytes received

    def __getitem__(self, rest: slice, /) -> memoryview:
        while rest.start >= self._stop:
            self._view = next(self._views)
            self._start, self._stop = self._stop, self._stop + len(self._view)
        return self._view[rest.start - self._start :]

    def finish(self) -> None:
        """All bytes are there: let the iterator look at the last of them."""
        self._view = memoryview(b"")
        next(self._views, None)
