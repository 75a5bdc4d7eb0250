"""Ways of reading as classes, for programs that ask what a reader is, or construct one."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from s3torchconnector._config import MIB
from s3torchconnector._transfer import range_based
from s3torchconnector._types import HeadObjectResult, ObjectInfo
from s3torchconnector.s3reader.s3reader import S3Reader


class SequentialS3Reader(S3Reader):
    """A reader by ``S3ReaderConstructor.sequential``."""


class RangedS3Reader(S3Reader):
    """A reader by ``S3ReaderConstructor.range_based``, which see for ``buffer_size``."""

    def __init__(
        self,
        bucket: str,
        key: str,
        get_object_info: Callable[[], ObjectInfo | HeadObjectResult],
        get_stream: Callable[..., Iterable[bytes]],
        buffer_size: int | None = None,
    ) -> None:
        policy = range_based(8 * MIB if buffer_size is None else max(0, buffer_size))
        super().__init__(bucket, key, get_object_info, get_stream, policy=policy)


class DCPOptimizedS3Reader(S3Reader):
    """A reader by ``S3ReaderConstructor.dcp_optimized``."""
