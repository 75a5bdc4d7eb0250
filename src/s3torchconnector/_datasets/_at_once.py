"""Jobs on threads, whose results come in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


def in_order(
    job: Callable[[_T], _R],
    items: Iterable[_T],
    at_once: int,
    ahead: int,
    stop: Callable[[], object] = lambda: None,
) -> Iterator[_R]:
    """What ``job`` returns of each item, in their order. After an error, or if the caller goes away, none is begun.

    Those that run then are waited for.

    Args:
        job: runs on a thread.
        items: taken as they are needed.
        at_once: most jobs that run at the same time.
        ahead: most that are under way, or wait for one before them.
        stop: called at the end, to end the jobs that run early.

    Raises:
        Exception: what a job has raised, once the results before it were taken.
    """
    waiting: deque[Future[_R]] = deque()
    with ThreadPoolExecutor(at_once, "s3torchconnector-index") as threads:
        try:
            for item in items:
                waiting.append(threads.submit(job, item))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            stop()
            threads.shutdown(wait=False, cancel_futures=True)
