"""``S3ReaderConstructor``: named ways of reading, to be passed as ``reader_constructor``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from s3torchconnector._config import MIB
from s3torchconnector._transfer import ADAPTIVE, SEQUENTIAL, ReadPolicy, range_based
from s3torchconnector.s3reader.s3reader import S3Reader


class S3ReaderConstructorProtocol(Protocol):
    """Makes a reader of one object; any callable that takes these four keywords will do.

    ``get_stream(start=None, end=None)`` iterates the object's ``bytes`` from ``start`` up to but without ``end``;
    ``get_object_info()`` describes the object (see ``ObjectInfo``, ``HeadObjectResult``).
    """

    def __call__(
        self, bucket: str, key: str, get_object_info: Callable[[], Any], get_stream: Callable[..., Any]
    ) -> S3Reader: ...


class S3ReaderConstructor:
    """Ways of reading. Each method returns a constructor, which pickles.

    Example:
        >>> S3MapDataset.from_prefix(uri, region=region, reader_constructor=S3ReaderConstructor.range_based())
    """

    @staticmethod
    def default() -> S3ReaderConstructorProtocol:
        """Adapts to what is read: whole objects and reads in order at full speed, small pieces for scattered reads."""
        return partial(S3Reader, policy=ADAPTIVE)

    @staticmethod
    def sequential() -> S3ReaderConstructorProtocol:
        """For objects read from beginning to end: reads ahead at full speed from the first read on."""
        return partial(S3Reader, policy=SEQUENTIAL)

    @staticmethod
    def range_based(buffer_size: int | None = None) -> S3ReaderConstructorProtocol:
        """For a few reads at a few places: fetches what is asked for, and never unasked.

        Args:
            buffer_size: bytes that a smaller read fetches at least, so that many small reads close to each other
                are one request; 8 MiB by default, 0 for none.

        Raises:
            ValueError: ``buffer_size`` is negative.
        """
        size = 8 * MIB if buffer_size is None else buffer_size
        if size < 0:
            raise ValueError(f"buffer_size must not be negative: buffer_size={buffer_size}")
        return partial(S3Reader, policy=range_based(size))

    @staticmethod
    def dcp_optimized(max_gap_size: int = 32 * MIB) -> S3ReaderConstructorProtocol:
        """For distributed checkpoints: reads that move forward, where gaps up to ``max_gap_size`` bytes are skipped.

        ``S3StorageReader`` fetches what it wants of a file together where no larger gaps lie between.

        Raises:
            ValueError: ``max_gap_size`` is negative.
        """
        if max_gap_size < 0:
            raise ValueError(f"max_gap_size must not be negative: max_gap_size={max_gap_size}")
        return partial(S3Reader, policy=ReadPolicy(near=max_gap_size, max_gap=max_gap_size))
