"""Runs jobs on threads and returns their results in order.

No exit waits for these threads, so Ctrl-C ends a program even if a server does not respond.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from functools import partial
from typing import TypeVar

from s3torchconnector._transfer import Lane, Workers

_T = TypeVar("_T")
_R = TypeVar("_R")
_LOOK_AGAIN = 0.5  # seconds
_SECONDS_TO_STOP = 2.0


def in_order(
    job: Callable[[_T], _R],
    items: Iterable[_T],
    at_once: int,
    ahead: int,
    stop: Callable[[], object] = lambda: None,
) -> Iterator[_R]:
    """What ``job`` returns of each item, in their order. After an error, or if the caller goes away, none is begun.

    Those that run then get two seconds to end.

    Args:
        job: runs on a thread.
        items: taken as they are needed.
        at_once: most jobs that run at the same time.
        ahead: most that are under way, or wait for one before them.
        stop: called at the end, to end the jobs that run early.

    Raises:
        Exception: what a job has raised, once the results before it were taken.
    """
    workers = Workers(at_once)
    lane = Lane(workers, at_once)
    waiting: deque[Future[_R]] = deque()
    try:
        for item in items:
            waiting.append(lane.submit(partial(job, item)))
            if len(waiting) >= ahead:
                yield _result(waiting[0])
                waiting.popleft()
        while waiting:
            yield _result(waiting[0])
            waiting.popleft()
    finally:
        stop()
        running = [each for each in waiting if not each.cancel()]
        if not wait(running, _SECONDS_TO_STOP).not_done:
            workers.close()


def _result(future: Future[_R]) -> _R:
    """Wait for a result, and look for Ctrl-C from time to time: Python misses one that comes just before it waits."""
    while not future.done():
        wait([future], _LOOK_AGAIN)
    return future.result()
