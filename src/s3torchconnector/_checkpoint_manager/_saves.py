"""The saves of one manager, in the foreground and in the background: one at a time."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

from s3torchconnector._platform import at_fork
from s3torchconnector._transfer import expect_no_more_uploads, expect_uploads

_log = logging.getLogger(__name__)


class Saves:
    """The saves of one manager. Each begins after the previous one has ended.

    If a step is saved twice, the later save must remain, so saves must commit in order. A save in the background also
    holds a copy of the state, and there should never be two copies.
    """

    def __init__(self) -> None:
        self._start_afresh()
        _all.add(self)

    def _start_afresh(self) -> None:
        self._lock = threading.RLock()  # re-entrant: a signal handler may save, too
        self._last: tuple[int, Future[None]] | None = None
        self._thread: ThreadPoolExecutor | None = None

    @contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """Wait until the previous save has ended, and hold off others: ``with saves.one_at_a_time(): ...``"""
        with self._lock:
            self._wait_for_last()
            yield

    def in_background(self, step: int, job: Callable[[], None]) -> Future[None]:
        """Within ``one_at_a_time``: carry out ``job``, the rest of the save of ``step``, in the background."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "s3torchconnector-save")
        future = self._thread.submit(job)
        self._last = step, future
        expect_uploads(future)
        future.add_done_callback(expect_no_more_uploads)
        future.add_done_callback(lambda done: _log_error(step, done))
        return future

    def wait_for(self, step: int) -> None:
        """Wait until a save of this step in the background has ended, with or without an error."""
        last = self._last
        if last is not None and last[0] == step:
            wait([last[1]])

    def _wait_for_last(self) -> None:
        if self._last is not None:
            wait([self._last[1]])
            self._last = None

    def close(self) -> None:
        """Wait for the save in the background, and end the thread."""
        with self.one_at_a_time():
            thread, self._thread = self._thread, None
            if thread is not None:
                thread.shutdown()


_all: weakref.WeakSet[Saves] = weakref.WeakSet()


def _log_error(step: int, done: Future[None]) -> None:
    """For programs that never look at the future: their jobs could run for weeks without a checkpoint."""
    error = None if done.cancelled() else done.exception()
    if error is not None:
        _log.error("the checkpoint of step %d was not saved: %s", step, error)


def _leave_all_to_parent() -> None:
    for saves in list(_all):
        saves._start_afresh()


at_fork(after_in_child=_leave_all_to_parent)
