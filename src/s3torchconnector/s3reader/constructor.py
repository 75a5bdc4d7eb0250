"""``S3ReaderConstructor``: ways of reading, for the parameter ``reader_constructor``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from s3torchconnector._config import MIB
from s3torchconnector._transfer import ADAPTIVE, SEQUENTIAL, ReadPolicy
from s3torchconnector.s3reader.kinds import DCPOptimizedS3Reader, RangedS3Reader, SequentialS3Reader
from s3torchconnector.s3reader.s3reader import S3Reader

__all__ = ["S3ReaderConstructor", "S3ReaderConstructorProtocol"]

_NAMES: dict[object, str] = {
    S3Reader: "sequential",
    SequentialS3Reader: "sequential",
    RangedS3Reader: "range_based",
    DCPOptimizedS3Reader: "dcp_optimized",
}


class S3ReaderConstructorProtocol(Protocol):
    """What makes a reader of one object: any callable that takes these four keywords.

    ``get_object_info()`` returns what is known about the object: ``size`` in bytes, ``etag`` and more.
    ``get_stream(start=None, end=None)`` returns the bytes from ``start`` up to, but not including, ``end``, as an
    iterable of ``bytes``.

    Example:
        >>> from s3torchconnector import S3Checkpoint, S3Reader
        >>> def logged(bucket, key, get_object_info, get_stream):
        ...     print("opening", key)
        ...     return S3Reader(bucket, key, get_object_info, get_stream)
        >>> checkpoint = S3Checkpoint("us-east-1", reader_constructor=logged)
        >>> checkpoint.reader("s3://my-bucket/images/0.png").read(4)
        opening images/0.png
        b'\\x89PNG'
    """

    def __call__(
        self, bucket: str, key: str, get_object_info: Callable[[], Any], get_stream: Callable[..., Any]
    ) -> S3Reader: ...


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
        return partial(S3Reader, policy=ADAPTIVE)

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
        return partial(RangedS3Reader, buffer_size=buffer_size)

    @staticmethod
    def dcp_optimized(max_gap_size: int = 32 * MIB) -> S3ReaderConstructorProtocol:
        """Fetch across small gaps: for reads that move forward, as those of distributed checkpoints.

        ``S3StorageReader`` fetches two ranges of a file in one request if the gap between them is small enough.

        Args:
            max_gap_size: the largest gap, in bytes, that is fetched.

        Raises:
            ValueError: ``max_gap_size`` is negative.
        """
        if max_gap_size < 0:
            raise ValueError(f"max_gap_size must not be negative: max_gap_size={max_gap_size}")
        return partial(DCPOptimizedS3Reader, policy=ReadPolicy(near=max_gap_size, max_gap=max_gap_size))

    @staticmethod
    def get_reader_type_string(constructor: S3ReaderConstructorProtocol | None) -> str:
        """Return the name of a way of reading: ``"sequential"``, ``"range_based"`` or ``"dcp_optimized"``.

        The name of the default, and of None, is ``"sequential"``. That of any other constructor is ``"unknown"``.
        """
        if constructor is None:
            return "sequential"
        return _NAMES.get(constructor.func, "unknown") if isinstance(constructor, partial) else "unknown"
