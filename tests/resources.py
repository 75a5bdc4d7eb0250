"""What this process has open, counted by the operating system."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil

_TIMEOUT = 10.0  # seconds


def threads_become(count: int) -> bool:
    """Whether this process comes to have no more threads than that.

    A thread that has done its last step takes a moment to go, and there is nothing in a process to wait for it with.
    """
    return _becomes(psutil.Process().num_threads, count)


def descriptors_become(count: int) -> bool:
    """Whether this process comes to have no more descriptors than that: a dropped client is closed by a thread."""
    return _becomes(psutil.Process().num_fds, count)


def _becomes(number: Callable[[], int], count: int) -> bool:
    deadline = time.monotonic() + _TIMEOUT
    while number() > count and time.monotonic() < deadline:
        time.sleep(0.001)
    return number() <= count
