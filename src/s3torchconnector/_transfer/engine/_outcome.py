"""Whether something that another thread does is done: a future without its condition variable.

A ``concurrent.futures.Future`` costs more to make and settle than everything else that happens to a small object.
All that is needed here is one who starts or gives up, one who settles, and others who wait. Only operations that are
atomic on built-in types are used, so that nothing is held at a fork.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Outcome:
    """Claimed at most once, by who does the work or who gives it up; settled at most once, maybe with an ``error``."""

    __slots__ = ("_callbacks", "_claims", "_latch", "error", "settled")

    def __init__(self) -> None:
        self._latch = threading.Lock()
        self._latch.acquire()
        self._claims = [True]
        self._callbacks: list[Callable[[], None]] = []
        self.error: BaseException | None = None
        self.settled = False

    def claim(self) -> bool:
        """Whether the work is the caller's: to be started, or to be given up."""
        try:
            return self._claims.pop()
        except IndexError:
            return False

    def unclaim(self) -> None:
        """Leave the work to the next who claims it."""
        self._claims.append(True)

    def settle(self, error: BaseException | None = None) -> None:
        """It is done, or it failed: wake who waits."""
        self.error = error
        self.settled = True
        self._latch.release()
        self._call_back()

    def wait(self) -> None:
        """Wait until it is settled.

        Raises:
            BaseException: the error it was settled with.
        """
        self.join()
        if self.error is not None:
            raise self.error

    def join(self) -> None:
        """Wait until it is settled, either way."""
        if not self.settled:
            self._latch.acquire()
            self._latch.release()  # for the next who waits

    def when_settled(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once it is settled: at once if it is, otherwise on the thread that settles."""
        self._callbacks.append(callback)
        if self.settled:
            self._call_back()

    def _call_back(self) -> None:
        # Two threads may be here at once; each callback is popped by one of them.
        while self._callbacks:
            try:
                callback = self._callbacks.pop()
            except IndexError:
                return
            callback()
