"""``S3ReaderConstructor``: ways of reading, for the parameter ``reader_constructor``."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from s3torchconnector._late_imports import names_from, no_fork
from s3torchconnector._transfer import ADAPTIVE, DEFAULT_MAX_GAP_SIZE, SEQUENTIAL
from s3torchconnector._types import HeadObjectResult, ObjectInfo
from s3torchconnector.s3reader.protocol import DCPS3ReaderConstructorProtocol, S3ReaderConstructorProtocol
from s3torchconnector.s3reader.s3reader import S3Reader
from s3torchconnector.s3reader.sequential import SequentialS3Reader

if TYPE_CHECKING:
    from s3torchconnector.s3reader.dcp_optimized import ItemRange

__all__ = ["DCPOptimizedConstructor", "S3ReaderConstructor", "S3ReaderConstructorProtocol"]

# 1.5.0 has them here, too. Programs that read in another way need not wait for their imports.
__getattr__ = names_from(
    __name__,
    {"DCPOptimizedS3Reader": "dcp_optimized", "ItemRange": "dcp_optimized", "RangedS3Reader": "ranged"},
    "s3torchconnector.s3reader",
)


class DCPOptimizedConstructor:
    """What ``S3ReaderConstructor.dcp_optimized(max_gap_size)`` returns. It can be pickled.

    ``S3StorageReader`` plans a load for all files together, and takes ``max_gap_size`` from here. A program that reads
    a checkpoint's files by itself may call ``set_item_ranges_by_file`` and then this object, or just the latter.

    Args:
        max_gap_size: the largest gap, in bytes, that is fetched. It may be infinite.

    Raises:
        ValueError: ``max_gap_size`` is negative.

    Example:
        >>> from s3torchconnector.s3reader import DCPOptimizedConstructor
        >>> DCPOptimizedConstructor(max_gap_size=1024).max_gap_size
        1024
    """

    def __init__(self, max_gap_size: int | float = DEFAULT_MAX_GAP_SIZE) -> None:
        if max_gap_size < 0:
            raise ValueError(f"max_gap_size must not be negative: max_gap_size={max_gap_size}")
        self.max_gap_size = max_gap_size
        self._item_ranges_by_file: dict[str, list[ItemRange]] = {}

    def set_item_ranges_by_file(
        self, plan_items: Sequence[Any], storage_data: Mapping[Any, Any], base_path: str | os.PathLike[str]
    ) -> None:
        """Note which ranges of each file will be read.

        Args:
            plan_items: PyTorch's ``ReadItem`` of everything that is loaded.
            storage_data: where each ``MetadataIndex`` is stored.
            base_path: the checkpoint, ``s3://bucket/prefix``.
        """
        with no_fork:
            from s3torchconnector.s3reader.dcp_optimized import ItemRange

        ranges: defaultdict[str, list[ItemRange]] = defaultdict(list)
        for item in plan_items:
            info = storage_data[item.storage_index]
            path = f"{os.fspath(base_path)}/{info.relative_path}"
            ranges[path].append(ItemRange(info.offset, info.offset + info.length))
        self._item_ranges_by_file = dict(ranges)

    def __call__(
        self,
        bucket: str,
        key: str,
        get_object_info: Callable[[], ObjectInfo | HeadObjectResult],
        get_stream: Callable[..., Iterable[bytes]],
    ) -> S3Reader:
        """Make the reader of one object."""
        with no_fork:
            from s3torchconnector.s3reader.dcp_optimized import DCPOptimizedS3Reader

        ranges = self._item_ranges_by_file.get(f"s3://{bucket}/{key}", [])
        return DCPOptimizedS3Reader(bucket, key, ranges, get_object_info, get_stream, self.max_gap_size)


class S3ReaderConstructor:
    """Ways of reading. Each method returns a constructor, which can be pickled, for ``reader_constructor``.

    Example:
        >>> from s3torchconnector import S3MapDataset, S3ReaderConstructor
        >>> dataset = S3MapDataset.from_prefix(
        ...     "s3://my-bucket/images/",
        ...     region="us-east-1",
        ...     transform=lambda reader: reader.read(4),
        ...     reader_constructor=S3ReaderConstructor.range_based(buffer_size=0),
        ... )
        >>> dataset[0]
        b'\\x89PNG'
    """

    @staticmethod
    def default() -> S3ReaderConstructorProtocol:
        """Adapt to the reads: whole objects and reads in order at full speed, small requests for scattered reads."""
        return partial(SequentialS3Reader, policy=ADAPTIVE)

    @staticmethod
    def sequential() -> S3ReaderConstructorProtocol:
        """Read ahead at full speed from the first read on: for objects that are read from start to end."""
        return partial(SequentialS3Reader, policy=SEQUENTIAL)

    @staticmethod
    def range_based(buffer_size: int | None = None) -> S3ReaderConstructorProtocol:
        """Fetch what is read, and nothing ahead: for a few reads at a few positions.

        Args:
            buffer_size: a smaller read fetches this number of bytes, so that small reads close to each other share a
                request. By default 8 MiB; 0 or less fetches exactly what is read.
        """
        with no_fork:
            from s3torchconnector.s3reader.ranged import RangedS3Reader

        return partial(RangedS3Reader, buffer_size=buffer_size)

    @staticmethod
    def dcp_optimized(max_gap_size: int | float = DEFAULT_MAX_GAP_SIZE) -> DCPS3ReaderConstructorProtocol:
        """Fetch across small gaps: for reads that move forward, as those of distributed checkpoints.

        ``S3StorageReader`` fetches two ranges of a file in one request if the gap between them is small enough.

        Args:
            max_gap_size: the largest gap, in bytes, that is fetched. It may be infinite.

        Raises:
            ValueError: ``max_gap_size`` is negative.
        """
        return DCPOptimizedConstructor(max_gap_size)

    @staticmethod
    def get_reader_type_string(constructor: S3ReaderConstructorProtocol | None) -> str:
        """Return the name of a way of reading: ``"sequential"``, ``"range_based"`` or ``"dcp_optimized"``.

        The name of the default, and of None, is ``"sequential"``. That of any other constructor is ``"unknown"``.
        """
        if constructor is None:
            return "sequential"
        if isinstance(constructor, DCPOptimizedConstructor):
            return "dcp_optimized"
        kind = constructor.func if isinstance(constructor, partial) else None
        if kind in (S3Reader, SequentialS3Reader):
            return "sequential"
        with no_fork:
            from s3torchconnector.s3reader.ranged import RangedS3Reader

        return "range_based" if kind is RangedS3Reader else "unknown"
