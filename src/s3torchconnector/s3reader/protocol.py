"""What reader constructors are: the types of the parameter ``reader_constructor`` and of what it is called with."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from s3torchconnector._late_imports import names_from
from s3torchconnector._transfer import GetObjectStream
from s3torchconnector._types import HeadObjectResult, ObjectInfo  # noqa: F401 (1.5.0 has these here)
from s3torchconnector.s3reader.s3reader import S3Reader

__all__ = ["DCPS3ReaderConstructorProtocol", "GetStreamCallable", "S3ReaderConstructorProtocol"]


class GetStreamCallable(Protocol):
    """Returns an object's bytes from ``start`` up to, but not including, ``end``; by default all of them.

    Example:
        >>> from s3torchconnector import S3Checkpoint, S3Reader
        >>> from s3torchconnector.s3reader import GetStreamCallable
        >>> def second_half(bucket, key, get_object_info, get_stream: GetStreamCallable):
        ...     size = get_object_info().size
        ...     print(b"".join(get_stream(size // 2, size)))
        ...     return S3Reader(bucket, key, get_object_info, get_stream)
        >>> _ = S3Checkpoint("us-east-1", reader_constructor=second_half).reader("s3://my-bucket/images/0.png")
        b'00000'
    """

    def __call__(self, start: int | None = None, end: int | None = None) -> GetObjectStream: ...


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


class DCPS3ReaderConstructorProtocol(S3ReaderConstructorProtocol, Protocol):
    """A reader constructor that ``S3StorageReader`` tells beforehand which ranges of each file a load will read.

    Example:
        >>> from s3torchconnector import S3ReaderConstructor
        >>> from s3torchconnector.s3reader import DCPS3ReaderConstructorProtocol
        >>> constructor: DCPS3ReaderConstructorProtocol = S3ReaderConstructor.dcp_optimized()
    """

    def set_item_ranges_by_file(
        self, plan_items: Sequence[Any], storage_data: Mapping[Any, Any], base_path: str | os.PathLike[str]
    ) -> None:
        """Note the ranges.

        Args:
            plan_items: PyTorch's ``ReadItem`` of everything that is loaded.
            storage_data: where each ``MetadataIndex`` is stored.
            base_path: the checkpoint, which the paths of files are relative to.
        """


# 1.5.0 has it here.
__getattr__ = names_from(__name__, {"ItemRange": "dcp_optimized"}, "s3torchconnector.s3reader")
