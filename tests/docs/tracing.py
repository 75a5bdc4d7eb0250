"""Which functions of ours an operation calls, on all its threads, and what lies between the program and the socket."""

from __future__ import annotations

import _thread
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import pytest

from tests.docs.pages import ROOT

SOURCE = f"{ROOT / 'src/s3torchconnector'}/"


@dataclass
class Trace:
    """What was called. Files are named by their paths below ``SOURCE``.

    Attributes:
        called: files and the names of their functions.
        on_the_way: the files on the stack of a thread that sent or received bytes.
    """

    called: set[tuple[str, str]] = field(default_factory=set)
    on_the_way: set[str] = field(default_factory=set)

    def note(self, frame: FrameType, event: str, argument: Any) -> None:
        """What ``sys.setprofile`` calls."""
        if event == "call":
            file = frame.f_code.co_filename
            if file.startswith(SOURCE):
                self.called.add((file.removeprefix(SOURCE), frame.f_code.co_name))
        elif event == "c_call" and _moves_bytes(argument):
            self.on_the_way.update(_files_on_stack(frame))


def _moves_bytes(function: Any) -> bool:
    """Whether it is ``socket.send`` or the like."""
    moves = getattr(function, "__name__", "").startswith(("send", "recv"))
    return moves and isinstance(getattr(function, "__self__", None), socket.socket)


def _files_on_stack(frame: FrameType | None) -> Iterator[str]:
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(SOURCE):
            yield file.removeprefix(SOURCE)
        frame = frame.f_back


@contextmanager
def tracing() -> Iterator[Trace]:
    """Traces this thread, and those of ours that it starts."""
    trace = Trace()
    start = _thread.start_new_thread

    def start_traced(function: Callable[..., object], arguments: tuple[Any, ...]) -> int:
        def run() -> None:
            sys.setprofile(trace.note)
            function(*arguments)

        return start(run, ())

    before = sys.getprofile()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", start_traced)
        sys.setprofile(trace.note)
        try:
            yield trace
        finally:
            sys.setprofile(before)
