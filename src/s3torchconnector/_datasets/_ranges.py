"""Small reads of files that go into a manifest, each in the version that was listed."""

from __future__ import annotations

from s3torchconnector._datasets._rows import Row
from s3torchconnector._errors import S3FormatError
from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer import PinnedRange, range_based
from s3torchconnector._types import ObjectInfo
from s3torchconnector._uri import display_uri

AT_ONCE = 32  # files: a small read of each


def read_range(client: S3Client, row: Row, start: int, stop: int) -> bytes:
    """Some bytes of an object, by one request.

    Raises:
        S3ObjectChangedError: it was overwritten.
        S3Exception: an error occurred accessing S3.
    """
    listed = ObjectInfo(row.key, row.etag, row.size, 0)
    opened = PinnedRange(client._runtime, row.bucket, row.key, listed, start, stop).open(range_based(0))
    try:
        return opened.read(0, stop - start)
    finally:
        opened.close()


def named_error(row: Row, what: str, error: Exception) -> S3FormatError:
    """An error about the content of an object, with its name."""
    return S3FormatError(
        f"{display_uri(row.bucket, row.key)} cannot be read as {what}: {error}", bucket=row.bucket, key=row.key
    )
