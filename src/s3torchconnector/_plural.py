"""Numbers of things, in words for people."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """A number and what it counts.

    >>> from s3torchconnector._plural import counted
    >>> counted(1, "step"), counted(2_000, "step")
    ('1 step', '2,000 steps')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
