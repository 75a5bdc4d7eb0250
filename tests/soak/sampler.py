"""Samples of this process, once a second, on a separate thread."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import psutil

from s3torchconnector._config import MIB

_EVERY = 1.0  # seconds


class Sampler:
    """A context manager that samples from its beginning to its end.

    Args:
        moved: bytes moved so far.

    Attributes:
        seconds: when each sample was taken.
        samples: by the name of its line.
    """

    def __init__(self, moved: Callable[[], int]) -> None:
        self._moved = moved
        self._process = psutil.Process()
        self._end = threading.Event()
        self.seconds: list[float] = []
        self.samples: dict[str, list[float]] = {"memory": [], "threads": [], "descriptors": [], "speed": []}

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run, name="sampler")
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()

    def _run(self) -> None:
        started = last = time.monotonic()
        before = self._moved()
        while not self._end.wait(_EVERY):
            now, moved = time.monotonic(), self._moved()
            with self._process.oneshot():
                self.samples["memory"].append(self._process.memory_info().rss / MIB)
                self.samples["threads"].append(self._process.num_threads())
                self.samples["descriptors"].append(self._process.num_fds())
            self.samples["speed"].append((moved - before) / MIB / (now - last))
            self.seconds.append(now - started)
            last, before = now, moved
