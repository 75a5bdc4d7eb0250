"""``DCPOptimizedS3Reader``: for reads that move forward, with gaps, as those of distributed checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from s3torchconnector._transfer import DEFAULT_MAX_GAP_SIZE, GetObjectStream, ReadPolicy  # noqa: F401 (names of 1.5.0)
from s3torchconnector._types import HeadObjectResult, ObjectInfo
from s3torchconnector.s3reader.s3reader import S3Reader

__all__ = ["DCPOptimizedS3Reader", "ItemRange", "RangeGroup"]

_NO_LIMIT = 1 << 62  # bytes


@dataclass
class ItemRange:
    """Where an item lies in its file: bytes ``start`` up to, but not including, ``end``.

    Example:
        >>> from s3torchconnector.s3reader import ItemRange
        >>> ItemRange(0, 1024)
        ItemRange(start=0, end=1024)
    """

    start: int
    end: int


@dataclass
class RangeGroup:
    """Items that are fetched by one request, and the bytes from the first to the last of them.

    Example:
        >>> from s3torchconnector.s3reader import ItemRange, RangeGroup
        >>> RangeGroup(0, 30, [ItemRange(0, 10), ItemRange(20, 30)]).end
        30
    """

    start: int
    end: int
    item_ranges: list[ItemRange]


class DCPOptimizedS3Reader(S3Reader):
    """What ``S3ReaderConstructor.dcp_optimized()`` makes.

    Args:
        bucket, key, get_object_info, get_stream: described in ``S3Reader``.
        item_ranges: what will be read. Other ranges can be read, too.
        max_gap_size: the largest gap between two reads, in bytes, that is fetched.

    Example:
        >>> from s3torchconnector import S3Checkpoint, S3ReaderConstructor
        >>> checkpoint = S3Checkpoint("us-east-1", reader_constructor=S3ReaderConstructor.dcp_optimized())
        >>> checkpoint.reader("s3://my-bucket/images/0.png")
        <DCPOptimizedS3Reader s3://my-bucket/images/0.png at 0>
    """

    def __init__(
        self,
        bucket: str,
        key: str,
        item_ranges: list[ItemRange],
        get_object_info: Callable[[], ObjectInfo | HeadObjectResult],
        get_stream: Callable[..., Iterable[bytes]],
        max_gap_size: int | float = DEFAULT_MAX_GAP_SIZE,
    ) -> None:
        policy = policy_across(max_gap_size)
        super().__init__(bucket, key, get_object_info, get_stream, policy=policy)


def policy_across(max_gap_size: int | float) -> ReadPolicy:
    """Fetch across gaps of that size, which may be infinite."""
    gap = int(min(max_gap_size, _NO_LIMIT))
    return ReadPolicy(near=gap, max_gap=gap)
