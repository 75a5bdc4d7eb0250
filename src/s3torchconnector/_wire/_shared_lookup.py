"""One look-up for all requests that need its result. It runs on a separate thread, and each request waits for it no
longer than its own deadline.

So a slow service (an instance metadata service, CreateSession) neither holds a lock that requests wait for nor makes
a request miss its deadline. A look-up that fails is repeated after a random pause, as long as a request waits for it
and trying again may help.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

from s3torchconnector._activity import activity
from s3torchconnector._errors import S3CredentialsError, S3Exception, S3TimeoutError
from s3torchconnector._jitter import jitter
from s3torchconnector._threads import start_thread
from s3torchconnector._wire._deadline import Deadline
from s3torchconnector._wire._fair_queue import Waiter

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_FIRST_PAUSE = 0.2  # seconds at most; doubled each time
_LONGEST_PAUSE = 10.0


class _LookUp(Generic[_T]):
    """A look-up and its outcome. Changed under the owner's lock, except for ``found`` and ``error``."""

    def __init__(self) -> None:
        self.waiting: list[Waiter] = []
        self.nobody_waits = threading.Event()  # any more
        self.over = False
        self.found: list[_T] = []  # the result, once there is one
        self.error: S3Exception | None = None  # of the latest attempt


class SharedLookup(Generic[_T]):
    """Look-ups of one thing, one at a time.

    Args:
        what: what is looked up, in the words of error messages.
        attempts: how many attempts a look-up may have after failing with this error.
        uniform: randomness in [0, 1).
    """

    def __init__(
        self,
        what: str,
        attempts: Callable[[S3Exception], int] = lambda error: 1,
        uniform: Callable[[], float] = jitter,
    ) -> None:
        self.what = what
        self._attempts = attempts
        self._uniform = uniform
        self._lock = threading.Lock()
        self._current: _LookUp[_T] | None = None

    def __repr__(self) -> str:
        current = self._current  # without the lock: the count may be of a moment ago
        return f"<SharedLookup [{self.what}: {f'{len(current.waiting)} waiting' if current else 'idle'}]>"

    @property
    def is_under_way(self) -> bool:
        return self._current is not None

    def start(self, look_up: Callable[[], _T]) -> None:
        """Start ``look_up`` on a thread, unless a look-up is running. Does not wait; a failure is not reported."""
        if self._current is None:
            self._enter(look_up, [])

    @activity("waits for the look-up of {0.what}", "self")
    def join(self, look_up: Callable[[], _T], deadline: Deadline) -> _T:
        """Wait for the look-up that is under way, or start ``look_up`` and wait for that; return what it found.

        Raises:
            S3Exception: it failed, and trying again cannot help or took too long.
            S3TimeoutError: it did not end before the deadline.
            CancelledByCaller: the token was cancelled.
        """
        while True:
            waiter = Waiter()
            current = self._enter(look_up, [waiter])
            late: S3TimeoutError | None = None
            try:
                waiter.wait(deadline)
            except S3TimeoutError as error:
                late = error
            finally:
                with self._lock:
                    current.waiting.remove(waiter)
                    if not current.waiting:
                        current.nobody_waits.set()
            if current.found:
                return current.found[0]
            if current.error is not None and (current.over or late):
                # Each thread raises its own error object: one object raised in several threads would mix their
                # tracebacks.
                raise copy.copy(current.error) from current.error.__cause__
            if late is not None:
                raise S3TimeoutError(f"{self.what} took too long to look up") from late
            # The thread that was to start the look-up was interrupted.

    def _enter(self, look_up: Callable[[], _T], waiting: list[Waiter]) -> _LookUp[_T]:
        """Add ``waiting`` to the look-up that is under way; start ``look_up`` if there is none."""
        fresh = _LookUp[_T]()
        try:
            with self._lock:
                if self._current is None:
                    self._current = fresh
                current = self._current
                current.waiting += waiting
            if current is fresh:
                self._launch(partial(self._look_up, fresh, look_up))
            return current
        except BaseException:  # from a signal handler, perhaps before the thread was started
            self._end(fresh)
            raise

    def _launch(self, job: Callable[[], None]) -> None:
        try:
            start_thread("look-up", job)
        except RuntimeError:  # no more threads, or the interpreter is ending
            job()

    @activity("looks up {0.what}", "self")
    def _look_up(self, current: _LookUp[_T], look_up: Callable[[], _T]) -> None:
        failures = 0
        while not current.found:
            try:
                current.found.append(look_up())
                break
            except S3Exception as error:
                current.error = error
            except BaseException as error:  # whatever it is, the waiting threads must learn of it
                current.error = S3CredentialsError(f"{self.what} could not be looked up: {error!r}")
                current.error.__cause__ = error
            failures += 1
            if failures >= self._attempts(current.error):
                break
            pause = self._uniform() * min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(failures - 1, 10))
            _log.info("%s; attempt %d follows in %.2f s", current.error, failures + 1, pause)
            current.nobody_waits.wait(pause)
            if self._is_abandoned(current):
                break
        self._end(current)

    def _is_abandoned(self, current: _LookUp[_T]) -> bool:
        with self._lock:
            if current.waiting:
                current.nobody_waits.clear()  # set before the present waiters came
            elif self._current is current:
                self._current = None  # under this lock, so that the next caller starts afresh
            return not current.waiting

    def _end(self, current: _LookUp[_T]) -> None:
        with self._lock:
            current.over = True
            if self._current is current:
                self._current = None
            for waiter in current.waiting:
                waiter.admit()
