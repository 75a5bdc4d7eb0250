"""Memory of the caller's that other threads write to, but only inside a ``with`` block."""

from __future__ import annotations

from types import TracebackType


class MemoryGuard:
    """However its ``with`` block is left, nothing touches the caller's memory afterwards.

    The block may end with an error or a ``KeyboardInterrupt``, and the wait for the writers may be interrupted itself,
    any number of times: it goes on until they have stopped. Then the last error is raised.
    """

    # A method that subclasses inherit, not a function that they call: interrupts strike where a function begins.
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        failure: BaseException | None = None
        over = False
        while not over:
            try:
                if error is None and failure is None:
                    self._await_writers()
                else:
                    self._stop_writers()
                over = True
            except BaseException as latest:  # a writer's; or an interrupt, after which others may still be writing
                failure = latest
        try:
            if failure is not None:
                raise failure
        finally:
            failure = None  # it refers to this frame

    def _await_writers(self) -> None:
        """Return when all have finished; raise the error of one that failed."""
        raise NotImplementedError

    def _stop_writers(self) -> None:
        """Make them stop, and return when they have. May be interrupted and called again."""
        raise NotImplementedError
