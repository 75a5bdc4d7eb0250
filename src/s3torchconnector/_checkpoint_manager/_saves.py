"""The order of one manager's saves: one at a time, in the background or not."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

from s3torchconnector._transfer import expect_no_more_uploads, expect_uploads

_log = logging.getLogger(__name__)


class Saves:
    """The saves of one manager.

    Each begins when the one before has ended: a commit deletes what its step's folder has besides, so that two saves of
    one step would take each other's data away, and the later one is to be what remains. Also, one in the background
    holds a copy of the state, of which there is never more than one.
    """

    def __init__(self) -> None:
        self._start_afresh()
        _all.add(self)

    def _start_afresh(self) -> None:
        self._turn = threading.RLock()  # re-entrant: a signal's handler may save, too
        self._last: tuple[int, Future[None]] | None = None
        self._thread: ThreadPoolExecutor | None = None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Begin a save, when the one before has ended: ``with saves.turn(): ...``"""
        with self._turn:
            self._join()
            yield

    def in_background(self, step: int, job: Callable[[], None]) -> Future[None]:
        """Within a ``turn``: have the save of ``step`` go on in the background, where it ends with ``job``."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "s3torchconnector-save")
        future = self._thread.submit(job)
        self._last = step, future
        expect_uploads(future)
        future.add_done_callback(expect_no_more_uploads)
        future.add_done_callback(lambda done: _tell(step, done))
        return future

    def join(self, step: int) -> None:
        """Wait for a save of this step in the background, however it ends."""
        last = self._last
        if last is not None and last[0] == step:
            wait([last[1]])

    def _join(self) -> None:
        if self._last is not None:
            wait([self._last[1]])
            self._last = None

    def close(self) -> None:
        """Wait for the save in the background, and end the thread."""
        with self.turn():
            thread, self._thread = self._thread, None
            if thread is not None:
                thread.shutdown()


_all: weakref.WeakSet[Saves] = weakref.WeakSet()


def _tell(step: int, done: Future[None]) -> None:
    """For programs that never ask: a job could run for weeks without a checkpoint."""
    error = None if done.cancelled() else done.exception()
    if error is not None:
        _log.error("the checkpoint of step %d was not saved: %s", step, error)


def _leave_all_to_parent() -> None:
    for saves in list(_all):
        saves._start_afresh()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all_to_parent)
