"""What finalisers leave to a thread, since they must neither wait nor start one.

A garbage collection runs at any moment, on any thread, under any lock: also under one that a finaliser would wait for.
So a finaliser that has to wait, for S3 or for threads, puts its job into a queue, which takes no lock. The thread that
does the job was started before, when the first object with such a finaliser was made.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from queue import SimpleQueue

from s3torchconnector._latch import Latch
from s3torchconnector._platform import at_fork
from s3torchconnector._threads import start_thread

_Job = Callable[[], object]
_log = logging.getLogger(__name__)
_jobs: SimpleQueue[_Job | None] = SimpleQueue()
_to_start = [True]  # popped by the caller that starts the thread
_ended = Latch()  # by the thread


def prepare_collector() -> None:
    """Start the thread, unless it runs already. Not for finalisers.

    Raises:
        RuntimeError: no thread can be started.
    """
    global _ended
    try:
        _to_start.pop()
    except IndexError:
        return
    try:
        _ended = Latch()
        start_thread("collector", _work, _jobs, _ended)
    except BaseException:
        _to_start.append(True)
        raise


def leave_to_collector(job: _Job) -> None:
    """Have the thread call ``job``. Waits for nothing, so it may be called anywhere."""
    _jobs.put(job)


def end_collector() -> Latch:
    """Have the thread end after the jobs that were left to it; then the latch is open."""
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
        except BaseException:  # the other jobs are still to be done
            _log.exception("a job that a finaliser left to be done failed")
        del job  # which keeps things alive
    ended.open()


def _forget_parents() -> None:
    """In a forked child: the jobs are the parent's."""
    global _jobs
    _jobs = SimpleQueue()
    _to_start[:] = [True]


at_fork(after_in_child=_forget_parents)
