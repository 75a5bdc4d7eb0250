"""How far long operations are: a line on the terminal for each that takes more than some seconds.

Transferring threads only count. One separate thread (``_progress_display``) reads the counts several times a second and
draws them. So no transfer waits for a terminal that accepts no output, such as a suspended one, and a line continues to
count seconds while nothing arrives.

Nothing is shown by worker processes and forked children, by ranks other than 0, and for what threads other than the
main one do: a save in the background must not write into the program's output.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from s3torchconnector._late_imports import no_fork
from s3torchconnector._platform import at_fork

if TYPE_CHECKING:
    from s3torchconnector._progress_display import Line

_T = TypeVar("_T")
_VARIABLE = "S3TORCHCONNECTOR_PROGRESS"
_SHOWN_AFTER = 5.0  # seconds that an operation takes before it is shown
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
        self._is_shown_here = is_shown_here(switch)
        self._shown_after = _SHOWN_AFTER if shown_after is None else shown_after
        self._started = time.monotonic()
        self._steps: deque[int] = deque()  # not added up here, which would take a lock
        self._done = 0
        self.line: Line | None = None  # the display's

    def advance(self, count: int) -> None:
        """So much more has been done."""
        if self._is_shown_here:
            self._steps.append(count)
            if self.line is None:
                self._show()

    def _show(self) -> None:
        if _is_child:  # it is the parent's operation
            self._is_shown_here = False
            return
        with no_fork:
            from s3torchconnector._progress_display import display
        display().add(self)

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
        line = self.line
        if line is not None:
            line.end()

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


_is_child = False


def _after_fork_in_child() -> None:
    global _is_child
    _is_child = True


at_fork(after_in_child=_after_fork_in_child)


def is_shown_here(switch: bool | None) -> bool:
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
