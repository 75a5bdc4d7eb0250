"""What finalisers leave to a thread, since they must neither wait nor start one.

A garbage collection strikes at any moment, on any thread, under any lock: also one that an end would wait for. So what
ends there and has to wait, for S3 or for threads, is put into a queue, which takes no lock, and done by a thread that
was started before: when the first thing was made that has such an end.
"""

from __future__ import annotations

import _thread
import logging
import os
from collections.abc import Callable
from queue import SimpleQueue

from s3torchconnector._latch import Latch

_Job = Callable[[], object]
_log = logging.getLogger(__name__)
_jobs: SimpleQueue[_Job | None] = SimpleQueue()
_to_start = [True]  # popped by who starts the thread
_ended = Latch()  # by the thread


def prepare_collector() -> None:
    """Have the thread, from now on. Not for finalisers.

    Raises:
        RuntimeError: there is no thread to be had.
    """
    global _ended
    try:
        _to_start.pop()
    except IndexError:
        return
    try:
        _ended = Latch()
        _thread.start_new_thread(_work, (_jobs, _ended))
    except BaseException:
        _to_start.append(True)
        raise


def leave_to_collector(job: _Job) -> None:
    """Have the thread call ``job``. Waits for nothing, so that it may be called anywhere."""
    _jobs.put(job)


def end_collector() -> Latch:
    """Have the thread end when it has done what was left to it: then the latch is open."""
    if _to_start:
        return _opened()
    _jobs.put(None)
    _to_start.append(True)
    return _ended


def _opened() -> Latch:
    latch = Latch()
    latch.open()
    return latch


def _work(jobs: SimpleQueue[_Job | None], ended: Latch) -> None:
    while (job := jobs.get()) is not None:
        try:
            job()
        except BaseException:  # the others are to be done all the same
            _log.exception("what a finaliser left to be done failed")
        del job  # which keeps things alive
    ended.open()


def _forget_parents() -> None:
    """In a forked child: what was left is the parent's."""
    global _jobs
    _jobs = SimpleQueue()
    _to_start[:] = [True]


os.register_at_fork(after_in_child=_forget_parents)
