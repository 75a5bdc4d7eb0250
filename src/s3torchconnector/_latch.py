"""Something that others wait for: an event without a lock inside.

``threading.Event`` takes a lock of its own in ``set`` and in ``wait``. A garbage collection that strikes there may run
code that sets the same event, on the same thread, which would then wait for itself for ever. Opening a latch is one
operation that waits for nothing, so that finalisers may do it at any moment, and the handlers of signals.
"""

from __future__ import annotations

from _thread import allocate_lock


class Latch:
    """Shut when it is made; opened once, for all who wait and all who will."""

    __slots__ = ("_lock", "_shut")

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._lock.acquire()
        self._shut = [True]  # popped by the one who opens

    @property
    def is_open(self) -> bool:
        return not self._shut

    def open(self) -> None:
        """Let everybody go on. Waits for nothing; may be called again."""
        try:
            self._shut.pop()
        except IndexError:
            return
        self._lock.release()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is open, or for so many seconds; whether it is open."""
        if self._shut and self._lock.acquire(True, -1 if seconds is None else max(0.0, seconds)):
            self._lock.release()  # for the next who waits
        return not self._shut
