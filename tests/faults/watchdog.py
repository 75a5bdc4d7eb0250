"""No operation may hang: each has a deadline, and the stacks of all threads are shown if one is missed.

Contract: operations register on their threads; the thread of ``Watchdog`` alone compares with the clock. ``wait``
returns when everything is done or a deadline was missed, so that the test can fail while the operation still hangs.
"""

from __future__ import annotations

import contextlib
import faulthandler
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

from typing_extensions import Self


class Watchdog:
    """A context manager.

    Args:
        seconds: what each operation may take.

    Attributes:
        missed: what was not done in time, with the stacks of all threads; empty if all is well.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._change = threading.Condition()
        self._deadlines: dict[object, tuple[float, str]] = {}  # the earliest first: all have the same time
        self._ended = False
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self.missed: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._change:
            self._ended = True
            self._change.notify_all()
        self._thread.join()

    @contextlib.contextmanager
    def watch(self, what: str) -> Iterator[None]:
        """An operation, named for the report."""
        token = object()
        with self._change:
            self._deadlines[token] = time.monotonic() + self._seconds, what
            self._change.notify_all()
        try:
            yield
        finally:
            with self._change:
                self._deadlines.pop(token, None)  # absent if the deadline was missed

    def wait(self, done: Callable[[], bool]) -> None:
        """Until ``done``, which is asked again at every ``wake``, or until a deadline is missed."""
        with self._change:
            self._change.wait_for(lambda: self.missed or done())

    def wake(self) -> None:
        with self._change:
            self._change.notify_all()

    def _watch(self) -> None:
        with self._change:
            while not self._ended:
                deadline, what = next(iter(self._deadlines.values()), (None, ""))
                left = None if deadline is None else deadline - time.monotonic()
                if left is None or left > 0:
                    self._change.wait(left)
                    continue
                self._deadlines.pop(next(iter(self._deadlines)))
                self.missed.append(f"{what} was not done after {self._seconds:g} s:\n{_stacks()}")
                self._change.notify_all()


def _stacks() -> str:
    """What every thread is doing."""
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        text = file.read()
    print(text, file=sys.stderr)
    return text
