"""Readers of checkpoints, whose progress is shown if they are large and take long."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from s3torchconnector._transfer import ObjectSource
from s3torchconnector._types import HeadObjectResult, ObjectInfo
from s3torchconnector.s3reader.constructor import S3ReaderConstructor
from s3torchconnector.s3reader.protocol import S3ReaderConstructorProtocol
from s3torchconnector.s3reader.s3reader import S3Reader


def shown(constructor: S3ReaderConstructorProtocol | None = None) -> S3ReaderConstructorProtocol:
    """What makes the readers that ``constructor`` makes, for ``S3Client.get_object``."""

    def construct(
        bucket: str,
        key: str,
        get_object_info: Callable[[], ObjectInfo | HeadObjectResult],
        get_stream: Callable[..., Iterable[bytes]],
    ) -> S3Reader:
        if isinstance(get_stream, ObjectSource):
            get_stream.shows_progress = True
        make = constructor or S3ReaderConstructor.default()
        return make(bucket=bucket, key=key, get_object_info=get_object_info, get_stream=get_stream)

    return construct
