"""Interrupts (Ctrl-C) where a test wants them."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any


@contextlib.contextmanager
def struck(strike: Callable[[], object], *functions: Callable[..., Any]) -> Iterator[None]:
    """``strike`` is called wherever this thread calls something in these functions, and wherever one of them begins:
    where the garbage collector or the handler of a signal may, with the locks that are held there."""
    codes = {function.__code__ for function in functions}

    def profile(frame: FrameType, event: str, _: Any) -> None:
        if event in ("call", "c_call", "c_return") and frame.f_code in codes:
            strike()  # the interpreter does not profile what is called here

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(before)


@contextlib.contextmanager
def interrupted_at(moment: int, *functions: Callable[..., Any]) -> Iterator[None]:
    """A KeyboardInterrupt when this thread has come to so many places in these functions where Python runs the handlers
    of signals: where a function begins, and where one that is written in C has ended."""
    left = moment
    codes = {function.__code__ for function in functions}

    def strike(frame: FrameType, event: str, _: Any) -> None:
        nonlocal left
        if event in ("call", "c_return") and frame.f_code in codes:
            left -= 1
            if not left:
                raise KeyboardInterrupt

    before = sys.getprofile()
    sys.setprofile(strike)
    try:
        yield
    finally:
        sys.setprofile(before)


class Interrupts:
    """Real signals to the main thread, whose handler raises: ``with Interrupts() as interrupts``."""

    def __enter__(self) -> Interrupts:
        self._before = signal.signal(signal.SIGUSR1, _interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGUSR1, self._before)

    def strike_in(self, function: str) -> bool:
        """Interrupt the main thread if it is in a function of that name now; says whether it was."""
        main = threading.main_thread().ident
        assert main is not None
        frame = sys._current_frames().get(main)
        if frame is None or frame.f_code.co_name != function:
            return False
        signal.pthread_kill(main, signal.SIGUSR1)
        return True


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
