"""Whether work on another thread is done: a future without its condition variable.

Making and setting a ``concurrent.futures.Future`` costs more than everything else that happens to a small object. Here
one thread does the work or cancels it, one sets the outcome, and others wait. Only operations on built-in types that
are atomic are used, so that no lock is held at a fork.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from s3torchconnector._activity import activity


class Outcome:
    """Claimed at most once, by the thread that does the work or cancels it; set at most once, perhaps to an
    ``error``.
    """

    __slots__ = ("_callbacks", "_claims", "_latch", "error", "is_set")

    def __init__(self) -> None:
        self._latch = threading.Lock()
        self._latch.acquire()
        self._claims = [True]
        self._callbacks: list[Callable[[], None]] = []
        self.error: BaseException | None = None
        self.is_set = False

    def claim(self) -> bool:
        """Whether the work is the caller's, to start or to cancel."""
        try:
            return self._claims.pop()
        except IndexError:
            return False

    def release_claim(self) -> None:
        """Leave the work to the next thread that claims it."""
        self._claims.append(True)

    def set(self, error: BaseException | None = None) -> None:
        """The work is done, or has failed with ``error``: wake all that wait."""
        self.error = error
        self.is_set = True
        self._latch.release()
        if self._callbacks:
            self._call_back()

    def wait(self) -> None:
        """Wait until it is set.

        Raises:
            BaseException: the error it was set to.
        """
        self.wait_until_set()
        if self.error is not None:
            raise self.error

    @activity("waits for another thread")
    def wait_until_set(self) -> None:
        """Wait until it is set, to an error or not."""
        if not self.is_set:
            self._latch.acquire()
            self._latch.release()  # for the next waiting thread

    def when_set(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when it is set: at once if it is already, otherwise on the thread that sets it."""
        self._callbacks.append(callback)
        if self.is_set:
            self._call_back()

    def _call_back(self) -> None:
        # Two threads may be here at once; each callback is popped by one of them.
        while self._callbacks:
            try:
                callback = self._callbacks.pop()
            except IndexError:
                return
            callback()
