"""What this process has open, counted by the operating system."""

from __future__ import annotations

import time

import psutil

_PATIENCE = 10.0  # seconds


def threads_become(count: int) -> bool:
    """Whether this process comes to have no more threads than that.

    A thread that has done its last step takes a moment to go, and there is nothing in a process to wait for it with.
    """
    process, deadline = psutil.Process(), time.monotonic() + _PATIENCE
    while process.num_threads() > count and time.monotonic() < deadline:
        time.sleep(0.001)
    return process.num_threads() <= count
