"""Bytes that are received because they lie between wanted ones, and thrown away."""

from __future__ import annotations

from collections.abc import Iterator

from s3torchconnector._config import KIB

_AT_ONCE = 256 * KIB  # bytes received at a time


def discarded(count: int) -> Iterator[memoryview]:
    """Where to receive ``count`` bytes that nobody wants: the same small piece of memory, again and again."""
    # Not shared with other threads: what comes is summed, and must not change until that is done.
    memory = memoryview(bytearray(max(0, min(count, _AT_ONCE))))
    while count > 0:
        view = memory[:count]
        yield view
        count -= len(view)
