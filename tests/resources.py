"""Open resources of this process, and settings by which a test finds those of its own client."""

from __future__ import annotations

import gc
import itertools
import os
import threading
import time
from typing import Any

import psutil

from s3torchconnector import S3ClientConfig
from s3torchconnector._transfer import leave_to_collector
from s3torchconnector._transfer.engine._collector import prepare_collector

_TIMEOUT = 10.0  # seconds; idle threads end by themselves after 20
_numbers = itertools.count(1)


class Opened:
    """The threads and descriptors that were opened since this was made, one by one.

    Their number in the whole process would say nothing: what other tests left ends at any moment. What of that is
    garbage is collected first, since a thread closes it, which would be taken for one of the test.
    """

    def __init__(self) -> None:
        done = threading.Event()
        prepare_collector()  # a thread that stays
        gc.collect()
        leave_to_collector(done.set)
        assert done.wait(_TIMEOUT)
        self._threads = _threads()
        self._descriptors = _descriptors()

    @property
    def threads(self) -> set[int]:
        return _threads() - self._threads

    @property
    def descriptors(self) -> set[tuple[int, ...]]:
        return _descriptors() - self._descriptors

    def are_gone(self) -> bool:
        """Whether all of it comes to an end.

        A thread that has done its last step takes a moment to go, and a dropped client is closed by a thread; there is
        nothing in a process to wait for it with.
        """
        deadline = time.monotonic() + _TIMEOUT
        while (self.threads or self.descriptors) and time.monotonic() < deadline:
            time.sleep(0.001)
        left = self.threads
        names = [thread.name for thread in threading.enumerate() if thread.native_id in left]
        print(f"left over: threads {left} ({names}), descriptors {self.descriptors}")
        return not left and not self.descriptors


def settings_of_its_own(**settings: Any) -> S3ClientConfig:
    """Settings that no other client has: clients of one process that are configured alike share what they open."""
    return S3ClientConfig(**{"operation_timeout": 1000.0 + next(_numbers), **settings})


def _threads() -> set[int]:
    return {thread.id for thread in psutil.Process().threads()}


def _descriptors() -> set[tuple[int, ...]]:
    """Each with what it is open for, since its number is used again."""
    found = set()
    for name in os.listdir("/dev/fd"):
        try:
            status = os.fstat(int(name))
        except OSError:  # that of the folder itself, and what other threads have closed meanwhile
            continue
        found.add((int(name), status.st_dev, status.st_ino))
    return found
