"""One look-up for all who need what it finds: it runs on a thread of its own, and each waits as long as it may.

So nothing that is slow to answer, as metadata services and directory buckets can be, holds a lock that requests wait
for, or makes a request outlast its deadline. A look-up that fails is made again, after a pause by chance, as long as
somebody waits for it and trying again may help.
"""

from __future__ import annotations

import copy
import logging
import random
import threading
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

from s3torchconnector._errors import S3CredentialsError, S3Exception, S3TimeoutError
from s3torchconnector._wire._deadline import Deadline
from s3torchconnector._wire._fair_queue import Waiter

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_FIRST_PAUSE = 0.2  # seconds at most; twice as many each time
_LONGEST_PAUSE = 10.0


class _LookUp(Generic[_T]):
    """One that is under way, and what became of it. Changed under the owner's lock, but for the latest ``error``."""

    def __init__(self) -> None:
        self.waiting: list[Waiter] = []
        self.nobody_waits = threading.Event()  # any more
        self.over = False
        self.found: list[_T] = []  # one, once it has
        self.error: S3Exception | None = None  # the latest attempt's


class SharedLookup(Generic[_T]):
    """Look-ups of one thing, one at a time.

    Args:
        what: is looked up, as errors name it.
        attempts: how many a look-up that failed with this error may have.
        uniform: randomness in [0, 1).
    """

    def __init__(
        self,
        what: str,
        attempts: Callable[[S3Exception], int] = lambda error: 1,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._what = what
        self._attempts = attempts
        self._uniform = uniform
        self._lock = threading.Lock()
        self._current: _LookUp[_T] | None = None

    def start(self, act: Callable[[], _T]) -> None:
        """Have ``act`` done, unless a look-up is under way. Does not wait, and nobody is told if it fails."""
        if self._current is None:
            self._begin(act, [])

    def join(self, act: Callable[[], _T], deadline: Deadline) -> _T:
        """Wait for the look-up that is under way, or for ``act``; return what it found.

        Raises:
            S3Exception: it failed, and trying again cannot help or took too long.
            S3TimeoutError: the time was over before it ended.
            CancelledByCaller: the token was cancelled.
        """
        while True:
            ticket = Waiter()
            current = self._begin(act, [ticket])
            late: S3TimeoutError | None = None
            try:
                ticket.wait(deadline)
            except S3TimeoutError as error:
                late = error
            finally:
                with self._lock:
                    current.waiting.remove(ticket)
                    if not current.waiting:
                        current.nobody_waits.set()
            if current.found:
                return current.found[0]
            if current.error is not None and (current.over or late):
                # A new error in each thread: raising one object in several would mix their tracebacks.
                raise copy.copy(current.error) from current.error.__cause__
            if late is not None:
                raise S3TimeoutError(f"{self._what} took too long to look up") from late
            # Who was to begin it was interrupted.

    def _begin(self, act: Callable[[], _T], waiting: list[Waiter]) -> _LookUp[_T]:
        """Have ``act`` done where nothing is under way; return what is now."""
        fresh = _LookUp[_T]()
        try:
            with self._lock:
                if self._current is None:
                    self._current = fresh
                current = self._current
                current.waiting += waiting
            if current is fresh:
                self._launch(partial(self._run, fresh, act))
            return current
        except BaseException:  # a signal's: it may have struck before anybody was at it
            self._end(fresh)
            raise

    def _launch(self, run: Callable[[], None]) -> None:
        try:
            threading.Thread(target=run, name="s3torchconnector look-up", daemon=True).start()
        except RuntimeError:  # no more threads, or the interpreter is ending
            run()

    def _run(self, current: _LookUp[_T], act: Callable[[], _T]) -> None:
        failures = 0
        while not current.found:
            try:
                current.found.append(act())
                break
            except S3Exception as error:
                current.error = error
            except BaseException as error:  # whatever it is, those who wait must be told
                current.error = S3CredentialsError(f"{self._what} could not be looked up: {error!r}")
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
                current.nobody_waits.clear()  # of whom those who came since know nothing
            elif self._current is current:
                self._current = None  # at once, so that whoever comes begins anew
            return not current.waiting

    def _end(self, current: _LookUp[_T]) -> None:
        with self._lock:
            current.over = True
            if self._current is current:
                self._current = None
            for ticket in current.waiting:
                ticket.admit()
