"""The lines on the terminal that show how far long operations are, and the thread that draws them, with tqdm.

The thread begins with the first operation, and ends when there was none for a while. This module is imported then.
"""

from __future__ import annotations

import atexit
import logging
import sys
import threading
import time
from _thread import get_ident
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from s3torchconnector._latch import Latch
from s3torchconnector._late_imports import no_fork
from s3torchconnector._platform import at_fork
from s3torchconnector._threads import start_thread

_log = logging.getLogger(__name__)
_EVERY = 0.2  # seconds between two looks at the counts
_EVERY_IN_A_FILE = 10.0  # seconds between two lines, if what is written to is no terminal
_STAYS = 10.0  # seconds that the thread waits for another operation
_PATIENCE = 1.0  # seconds that the end of an operation waits until its line is cleared


class Operation(Protocol):
    """What is shown of an operation: ``_progress.Progress``."""

    description: str
    unit: str
    total: int | None
    line: Line | None  # the display's

    @property
    def age(self) -> float: ...

    @property
    def is_long(self) -> bool: ...

    def done(self) -> int: ...


class Line:
    """What the display has of one operation."""

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self.is_visible = False
        self.is_cleared = Latch()
        self.bar: Any = None

    def draw(self) -> None:
        """Write it, or write it again. Errors of the terminal do not affect the operation."""
        operation, done = self.operation, self.operation.done()
        if self.bar is None:
            self.bar = _new_bar(operation)
        self.bar.total = operation.total
        self.bar.update(done - self.bar.n)

    def end(self) -> None:
        """The operation has ended."""
        _display.remove(self)

    def clear(self) -> None:
        bar, self.bar = self.bar, None
        if bar is not None:
            bar.close()


@cache
def _bars() -> type[Any]:
    """tqdm, without its thread, and with its lock, which all bars of the process share, released after an error."""
    with no_fork:
        from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]  # it has no types
        monitor_interval = 0

        def refresh(self, nolock: bool = False, lock_args: Any = None) -> Any:
            with self.get_lock():
                return super().refresh(nolock=True)

    return Bar


def _lock_of_bars() -> AbstractContextManager[object]:
    """tqdm's lock, if there is one yet. A program that draws may hold it for long, and no fork must wait for that."""
    module = sys.modules.get("tqdm.std")
    return getattr(getattr(module, "tqdm", None), "_lock", None) or nullcontext()


def _new_bar(operation: Operation) -> Any:
    every = _EVERY / 2 if sys.stderr.isatty() else _EVERY_IN_A_FILE
    is_bytes = operation.unit == "B"
    bar = _bars()(
        desc=operation.description, unit=operation.unit if is_bytes else f" {operation.unit}", leave=False,
        unit_scale=is_bytes or operation.total is None, dynamic_ncols=True, mininterval=every, miniters=0, delay=1e-9,
        smoothing=0,
    )  # fmt: skip
    bar.start_t -= operation.age  # it began before it is shown, and the rate is that of the whole time
    bar.last_print_t = 0.0  # so that it is shown at once
    return bar


class Display:
    """The lines of all operations of this process, and the thread that draws them."""

    def __init__(self) -> None:
        self._lines: dict[int, Line] = {}  # changed by single operations, which need no lock: finalisers do it, too
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._starting = threading.Lock()
        self._thread: int | None = None  # while it draws
        self._has_ended = Latch()
        self._ends = False  # with the process

    def add(self, operation: Operation) -> None:
        """Show an operation from now on, if it takes long."""
        with self._starting:
            if operation.line is not None or self._ends:
                return
            line = Line(operation)
            self._lines[id(line)] = line
            operation.line = line
            if self._thread is None:
                with suppress(RuntimeError):  # no thread can be started: nothing is shown
                    self._thread, self._has_ended = -1, Latch()
                    start_thread("progress", self._run)

    def remove(self, line: Line) -> None:
        """Clear a line, and wait for that, but not long."""
        if self._lines.pop(id(line), None) is not None and line.is_visible:
            self._wake.put(None)
            if self._thread != get_ident():
                line.is_cleared.wait(_PATIENCE)

    def end(self) -> None:
        """The process ends: clear all lines."""
        self._ends = True
        if self._thread is not None:
            self._wake.put(None)
            self._has_ended.wait(_PATIENCE)

    def leave_to_parent(self) -> None:
        """In a forked child: the lines, and the thread, are the parent's."""
        for line in self._lines.values():
            if line.bar is not None:
                line.bar.disable = True  # or its end would clear the parent's line

    def _run(self) -> None:
        self._thread = get_ident()
        shown: dict[int, Line] = {}
        idle_since = time.monotonic()
        while True:
            with suppress(Empty):
                self._wake.get(timeout=_EVERY)
            with _lock_of_bars(), no_fork:  # a child must not inherit tqdm's, or stderr's, while this thread holds it
                lines = {} if self._ends else self._lines.copy()
                _clear([line for key, line in shown.items() if key not in lines])
                shown = {key: line for key, line in lines.items() if self._is_drawn(key, line)}
            if lines:
                idle_since = time.monotonic()
            elif self._ends or time.monotonic() - idle_since > _STAYS:
                with self._starting:
                    if self._ends or not self._lines:
                        self._thread = None
                        self._has_ended.open()
                        return

    def _is_drawn(self, key: int, line: Line) -> bool:
        """Draw a line if its operation takes long; whether it is there."""
        if not line.operation.is_long and not line.is_visible:
            return False
        line.is_visible = True
        if key not in self._lines:  # it has ended meanwhile
            return line.bar is not None  # then it is cleared the next time
        try:
            line.draw()
        except Exception as error:  # such as OSError: the terminal is gone
            _log.debug("the progress of %s cannot be shown: %s", line.operation.description, error)
            self._lines.pop(key, None)
            _clear([line])
            return False
        return True


def _clear(lines: Iterable[Line]) -> None:
    for line in lines:
        with suppress(Exception):
            line.clear()
        line.is_cleared.open()


_display = Display()


def display() -> Display:
    """That of this process."""
    return _display


def _after_fork_in_child() -> None:
    global _display
    _display.leave_to_parent()
    _display = Display()
    _display.end()


at_fork(after_in_child=_after_fork_in_child)
atexit.register(lambda: _display.end())
