"""How far long operations are: a line on the terminal for each that takes more than some seconds.

Transferring threads only count. One separate thread reads the counts several times a second and draws them, with tqdm.
So no transfer waits for a terminal that accepts no output, such as a suspended one, and a line continues to count
seconds while nothing arrives. The thread begins with the first operation, and ends when there was none for a while.

Nothing is shown by worker processes and forked children, by ranks other than 0, and for what threads other than the
main one do: a save in the background must not write into the program's output.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from _thread import get_ident
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, TypeVar

from s3torchconnector._latch import Latch
from s3torchconnector._late_imports import no_fork
from s3torchconnector._platform import at_fork
from s3torchconnector._threads import start_thread

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
_VARIABLE = "S3TORCHCONNECTOR_PROGRESS"
_SHOWN_AFTER = 5.0  # seconds that an operation takes before it is shown
_EVERY = 0.2  # seconds between two looks at the counts
_EVERY_IN_A_FILE = 10.0  # seconds between two lines, if what is written to is no terminal
_STAYS = 10.0  # seconds that the thread waits for another operation
_PATIENCE = 1.0  # seconds that the end of an operation waits until its line is cleared
_WIDTH = 48  # characters of a description; a long URI loses those in the middle


class Progress:
    """One operation, and how much of it is done: ``with Progress(...) as progress: ... progress.advance(n)``.

    ``advance`` and ``close`` may be called by any thread, ``close`` also by finalisers and signal handlers.

    Args:
        switch: ``S3ClientConfig.progress``.
        description: what is done, such as ``reading s3://bucket/key``.
        unit: what is counted. ``B`` gets prefixes: ``1.2GB``.
        total: how much there is to do, if that is known. May be set later.
        shown_after: seconds.
    """

    def __init__(
        self,
        switch: bool | None,
        description: str,
        unit: str = "B",
        total: int | None = None,
        *,
        shown_after: float | None = None,
    ) -> None:
        self.description = _shortened(description)
        self.unit = unit
        self.total = total
        self._is_shown_here = _is_shown_here(switch)
        self._shown_after = _SHOWN_AFTER if shown_after is None else shown_after
        self._started = time.monotonic()
        self._steps: deque[int] = deque()  # not added up here, which would take a lock
        self._done = 0
        self._line: _Line | None = None  # the display's

    def advance(self, count: int) -> None:
        """So much more has been done."""
        if self._is_shown_here:
            self._steps.append(count)
            if self._line is None:
                _display.add(self)

    def each(self, items: Iterable[_T]) -> Iterator[_T]:
        """The items, each of which is counted when the next one is asked for; closes at the end."""
        with self:
            self.advance(0)
            for item in items:
                yield item
                self.advance(1)

    def restart(self) -> None:
        """Count the seconds from now on, unless it is shown already: until now nothing waited for it."""
        self._started = time.monotonic()

    def close(self) -> None:
        """It has ended: clear its line. May be called again."""
        self._is_shown_here = False
        line = self._line
        if line is not None:
            _display.remove(line)

    def done(self) -> int:
        """How much was done. For the thread that draws."""
        with suppress(IndexError):
            while True:
                self._done += self._steps.popleft()
        return self._done if self.total is None else min(self._done, self.total)

    @property
    def age(self) -> float:
        """Seconds since it was begun."""
        return time.monotonic() - self._started

    @property
    def is_long(self) -> bool:
        """Whether it has taken so long that it is shown."""
        return self.age > self._shown_after

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Line:
    """What the display has of one operation."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.is_visible = False
        self.is_cleared = Latch()
        self.bar: Any = None

    def draw(self) -> None:
        """Write it, or write it again. Errors of the terminal do not affect the operation."""
        progress, done = self.progress, self.progress.done()
        if self.bar is None:
            self.bar = _new_bar(progress)
        self.bar.total = progress.total
        self.bar.update(done - self.bar.n)

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


def _new_bar(progress: Progress) -> Any:
    every = _EVERY / 2 if sys.stderr.isatty() else _EVERY_IN_A_FILE
    is_bytes = progress.unit == "B"
    bar = _bars()(
        desc=progress.description, unit=progress.unit if is_bytes else f" {progress.unit}", leave=False,
        unit_scale=is_bytes or progress.total is None, dynamic_ncols=True, mininterval=every, miniters=0, delay=1e-9,
        smoothing=0,
    )  # fmt: skip
    bar.start_t -= progress.age  # it began before it is shown, and the rate is that of the whole time
    bar.last_print_t = 0.0  # so that it is shown at once
    return bar


class _Display:
    """The lines of all operations of this process, and the thread that draws them."""

    def __init__(self) -> None:
        self._lines: dict[int, _Line] = {}  # changed by single operations, which need no lock: finalisers do it, too
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._starting = threading.Lock()
        self._thread: int | None = None  # while it draws
        self._has_ended = Latch()
        self._ends = False  # with the process

    def add(self, progress: Progress) -> None:
        """Show an operation from now on, if it takes long."""
        with self._starting:
            if progress._line is not None or self._ends:
                return
            line = _Line(progress)
            self._lines[id(line)] = line
            progress._line = line
            if self._thread is None:
                with suppress(RuntimeError):  # no thread can be started: nothing is shown
                    self._thread, self._has_ended = -1, Latch()
                    start_thread("progress", self._run)

    def remove(self, line: _Line) -> None:
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
        shown: dict[int, _Line] = {}
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

    def _is_drawn(self, key: int, line: _Line) -> bool:
        """Draw a line if its operation takes long; whether it is there."""
        if not line.progress.is_long and not line.is_visible:
            return False
        line.is_visible = True
        if key not in self._lines:  # it has ended meanwhile
            return line.bar is not None  # then it is cleared the next time
        try:
            line.draw()
        except Exception as error:  # such as OSError: the terminal is gone
            _log.debug("the progress of %s cannot be shown: %s", line.progress.description, error)
            self._lines.pop(key, None)
            _clear([line])
            return False
        return True


def _clear(lines: Iterable[_Line]) -> None:
    for line in lines:
        with suppress(Exception):
            line.clear()
        line.is_cleared.open()


_display = _Display()
_is_child = False


def _after_fork_in_child() -> None:
    global _display, _is_child
    _display.leave_to_parent()
    _display, _is_child = _Display(), True
    _display.end()


at_fork(after_in_child=_after_fork_in_child)
atexit.register(lambda: _display.end())


def _is_shown_here(switch: bool | None) -> bool:
    """Whether this process and this thread show progress: by the switch, otherwise by the environment or the
    terminal.
    """
    if switch is None:
        switch = {"0": False, "1": True}.get(os.environ.get(_VARIABLE, ""))
    if switch is False or sys.stderr is None or not (switch or sys.stderr.isatty()):
        return False
    return threading.current_thread() is threading.main_thread() and not _is_worker() and _rank() == 0


def _is_worker() -> bool:
    processes = sys.modules.get("multiprocessing.process")  # a child of multiprocessing has imported it
    return _is_child or (processes is not None and processes.parent_process() is not None)


def _rank() -> int:
    """The rank of this process, by its process group (without importing PyTorch), or by what torchrun says."""
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    rank = os.environ.get("RANK", "")
    return int(rank) if rank.isdecimal() else 0


def _shortened(description: str) -> str:
    if len(description) <= _WIDTH:
        return description
    kept = _WIDTH - 1
    return f"{description[: kept - kept // 2]}…{description[-(kept // 2) :]}"
