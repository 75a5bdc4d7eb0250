"""How each command ends: an exit code, and one line on standard error if it failed."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from types import FrameType
from typing import Any

import typer

from s3torchconnector._cli._file_errors import STANDARD_OUTPUT, named_in_errors
from s3torchconnector._cli._output import printable, tell
from s3torchconnector._errors import S3Exception

FAILED = 1  # exit code: it failed, or a check found something wrong
USAGE = 2  # exit code: wrong usage
INTERRUPTED = 130  # exit code: Ctrl-C
PIPE_CLOSED = 141  # exit code: whoever read the output has ended


def with_exit_code(command: Callable[..., None]) -> Callable[..., None]:
    """The command, whose expected errors end the process with a line of text instead of a traceback."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            with named_in_errors(STANDARD_OUTPUT, unnamed=True):  # all other files are named where they are written
                command(*args, **kwargs)
                sys.stdout.flush()
        except KeyboardInterrupt:
            raise fail("interrupted", INTERRUPTED) from None
        except BrokenPipeError:
            _give_up_output()
            raise typer.Exit(PIPE_CLOSED) from None
        except (S3Exception, OSError, ValueError) as error:
            if getattr(error, "filename", None) == STANDARD_OUTPUT:
                _give_up_output()
            raise fail(str(error)) from None

    return run


def _give_up_output() -> None:
    """What is still to be written to standard output goes nowhere: Python flushes it again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def fail(text: str, code: int = FAILED) -> typer.Exit:
    """Print an error. Returns what to raise."""
    tell(f"s3torch: {printable(text)}")  # a text may quote what a file or a server says
    return typer.Exit(code)


def nothing_at(prefix: object) -> typer.Exit:
    """Say that no object was found. Returns what to raise."""
    return fail(f"there is no object whose key begins with {prefix}")


@contextlib.contextmanager
def clean_when_terminated() -> Iterator[None]:
    """In the block, SIGTERM and SIGHUP end the process as Ctrl-C does, after what cleans up. Exit code: 143 or 129.

    For the main thread. A signal that is ignored (``nohup``) stays so.
    """
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    ours = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, _exit)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
