"""``RangedS3Reader``: fetches what is read, and nothing ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from s3torchconnector._config import MIB
from s3torchconnector._transfer import GetObjectStream, range_based  # noqa: F401 (1.5.0 has the former here)
from s3torchconnector._types import HeadObjectResult, ObjectInfo
from s3torchconnector.s3reader.s3reader import S3Reader

__all__ = ["DEFAULT_BUFFER_SIZE", "RangedS3Reader"]

DEFAULT_BUFFER_SIZE = 8 * MIB


class RangedS3Reader(S3Reader):
    """What ``S3ReaderConstructor.range_based(buffer_size)`` makes.

    Example:
        >>> from s3torchconnector import S3Checkpoint, S3ReaderConstructor
        >>> checkpoint = S3Checkpoint("us-east-1", reader_constructor=S3ReaderConstructor.range_based())
        >>> checkpoint.reader("s3://my-bucket/images/0.png")
        <RangedS3Reader s3://my-bucket/images/0.png at 0>
    """

    def __init__(
        self,
        bucket: str,
        key: str,
        get_object_info: Callable[[], ObjectInfo | HeadObjectResult],
        get_stream: Callable[..., Iterable[bytes]],
        buffer_size: int | None = None,
    ) -> None:
        policy = range_based(DEFAULT_BUFFER_SIZE if buffer_size is None else max(0, buffer_size))
        super().__init__(bucket, key, get_object_info, get_stream, policy=policy)
