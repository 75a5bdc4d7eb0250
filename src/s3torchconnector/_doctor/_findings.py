"""Findings: what checks return, each one line of text."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

_LONGEST = 400  # characters of a text: servers may send any


class Status(Enum):
    """What a check found."""

    PASS = "pass"
    WARNING = "warning"  # a job works, but more slowly, or with a weaker promise
    FAILURE = "failure"
    SKIPPED = "skipped"  # not tried; the text says why


class Verdict(NamedTuple):
    """What one check found.

    Attributes:
        text: what it is, or why it was skipped.
        fix: what to type, or to do; empty if nothing has to be done.
        blocks: whether checks that need this one cannot be tried.
        cause: the earlier check because of which this one was not tried.
    """

    status: Status
    text: str
    fix: str = ""
    blocks: bool = False
    cause: str = ""


class Finding(NamedTuple):
    """A verdict with the name of its check. ``text`` and ``fix`` are one line each, without secrets."""

    check: str
    status: Status
    text: str
    fix: str


def passed(text: str) -> Verdict:
    return Verdict(Status.PASS, text)


def warned(text: str, fix: str) -> Verdict:
    return Verdict(Status.WARNING, text, fix)


def failed(text: str, fix: str, *, blocks: bool = True) -> Verdict:
    return Verdict(Status.FAILURE, text, fix, blocks)


def skipped(reason: str) -> Verdict:
    return Verdict(Status.SKIPPED, reason, blocks=True)


def because_of(cause: str) -> Verdict:
    """Not tried, because an earlier check has failed."""
    return Verdict(Status.SKIPPED, f"not tried, because of: {cause}", blocks=True, cause=cause)


def one_line(text: str) -> str:
    """Text as one printable line of limited length: a server's message may hold line breaks and control characters."""
    line = " ".join(text.split())
    line = "".join(letter if letter.isprintable() else "?" for letter in line)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."


def sentence(text: str) -> str:
    """Text without a full stop at its end, which follows."""
    return text.rstrip(". ")
