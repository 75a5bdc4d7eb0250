"""Something that threads wait for: an event without a lock inside.

``threading.Event`` takes its own lock in ``set`` and in ``wait``. A garbage collection that runs there may call a
finaliser that sets the same event, on the same thread, which would then wait for itself forever. Opening a latch is one
operation that waits for nothing, so finalisers and signal handlers may do it at any moment.
"""

from __future__ import annotations

from _thread import allocate_lock


class Latch:
    """Shut when it is made. Opened once, for all that wait now or later."""

    __slots__ = ("_lock", "_shut")

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._lock.acquire()
        self._shut = [True]  # popped by the thread that opens it

    @property
    def is_open(self) -> bool:
        return not self._shut

    def open(self) -> None:
        """Let all that wait go on. Waits for nothing; may be called again."""
        try:
            self._shut.pop()
        except IndexError:
            return
        self._lock.release()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is open, but no longer than ``seconds``; whether it is open."""
        if self._shut and self._lock.acquire(True, -1 if seconds is None else max(0.0, seconds)):
            self._lock.release()  # for the next waiting thread
        return not self._shut
