"""Bytes that lie between wanted ones. They are received and discarded."""

from __future__ import annotations

from collections.abc import Iterator

from s3torchconnector._config import KIB
from s3torchconnector._errors import S3ProtocolError
from s3torchconnector._wire import Response

_AT_ONCE = 256 * KIB  # bytes received at a time


def discarded(count: int) -> Iterator[memoryview]:
    """Memory to receive ``count`` unwanted bytes: the same small piece of memory, again and again."""
    # Not shared with other threads: what comes is summed, and must not change until that is done.
    memory = memoryview(bytearray(max(0, min(count, _AT_ONCE))))
    while count > 0:
        view = memory[:count]
        yield view
        count -= len(view)


def discard(response: Response, count: int) -> None:
    """Receive the bytes before the wanted ones, from a server that ignores ranges, and throw them away."""
    for view in discarded(count):
        while view:
            received = response.readinto(view)
            if not received:
                raise S3ProtocolError("the response ended before the bytes that were requested")
            view = view[received:]
