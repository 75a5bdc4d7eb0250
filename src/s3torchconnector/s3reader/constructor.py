"""``S3ReaderConstructor``: named ways of reading, to be passed as ``reader_constructor``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from s3torchconnector._config import MIB
from s3torchconnector._transfer import ADAPTIVE, SEQUENTIAL, ReadPolicy
from s3torchconnector.s3reader.kinds import DCPOptimizedS3Reader, RangedS3Reader, SequentialS3Reader
from s3torchconnector.s3reader.s3reader import S3Reader

_NAMES: dict[object, str] = {
    S3Reader: "sequential",
    SequentialS3Reader: "sequential",
    RangedS3Reader: "range_based",
    DCPOptimizedS3Reader: "dcp_optimized",
}


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
        return partial(SequentialS3Reader, policy=SEQUENTIAL)

    @staticmethod
    def range_based(buffer_size: int | None = None) -> S3ReaderConstructorProtocol:
        """For a few reads at a few places: fetches what is asked for, and never unasked.

        Args:
            buffer_size: bytes that a smaller read fetches at least, so that many small reads close to each other
                are one request; 8 MiB by default, 0 or less for none.
        """
        return partial(RangedS3Reader, buffer_size=buffer_size)

    @staticmethod
    def dcp_optimized(max_gap_size: int = 32 * MIB) -> S3ReaderConstructorProtocol:
        """For distributed checkpoints: reads that move forward, where gaps up to ``max_gap_size`` bytes are skipped.

        ``S3StorageReader`` fetches what it wants of a file together where no larger gaps lie between.

        Raises:
            ValueError: ``max_gap_size`` is negative.
        """
        if max_gap_size < 0:
            raise ValueError(f"max_gap_size must not be negative: max_gap_size={max_gap_size}")
        return partial(DCPOptimizedS3Reader, policy=ReadPolicy(near=max_gap_size, max_gap=max_gap_size))

    @staticmethod
    def get_reader_type_string(constructor: S3ReaderConstructorProtocol | None) -> str:
        """The name of a way of reading: ``"sequential"`` (also the default), ``"range_based"``, ``"dcp_optimized"``.

        ``"unknown"`` for constructors that are none of these.
        """
        if constructor is None:
            return "sequential"
        return _NAMES.get(constructor.func, "unknown") if isinstance(constructor, partial) else "unknown"
