"""Asks a person before something is deleted."""

from __future__ import annotations

import select
import sys
from typing import Annotated

import typer

from s3torchconnector._cli._endings import USAGE, fail
from s3torchconnector._platform import IS_POSIX

_LOOK_SECONDS = 0.1
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def expect_terminal(command: str) -> None:
    """Check that a person can be asked.

    Raises:
        typer.Exit: there is no terminal.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise fail(f"{command} asks before it deletes, and there is no terminal to ask at: add --yes", USAGE)


def confirm(question: str) -> None:
    """Ask, on standard error.

    Raises:
        typer.Exit: the answer is not yes.
    """
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if IS_POSIX:  # look again and again: a read would not notice Ctrl-C that came just before it
        while not select.select([sys.stdin], [], [], _LOOK_SECONDS)[0]:
            pass
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise fail("nothing was deleted")
