"""S3 URIs: ``s3://bucket/key``. Keys are used as they are: S3 knows no escaping, no ``.`` and no ``..``."""

from __future__ import annotations

import os
from pathlib import PurePath

_SCHEME = "s3://"


class NotAStringError(TypeError, ValueError):
    """Something that is no string was given as a URI. For programs written for 1.5.0, None is a wrong value."""


def parse_s3_uri(uri: str) -> tuple[str, str]:
    """Split an S3 URI into bucket and key. The key may be empty, to mean a whole bucket.

    Raises:
        TypeError: ``uri`` is not a string.
        ValueError: it is not an ``s3://`` URI, or it names no bucket.

    >>> from s3torchconnector._uri import parse_s3_uri
    >>> parse_s3_uri("s3://bucket/a/b.pt")
    ('bucket', 'a/b.pt')
    """
    if not isinstance(uri, str):
        raise NotAStringError(f"an S3 URI is a string such as 's3://bucket/key', not {type(uri).__name__}")
    if uri[: len(_SCHEME)].lower() != _SCHEME:
        raise ValueError(f"Only s3:// URIs are supported, not {uri!r}: write s3://bucket/key")
    bucket, _, key = uri[len(_SCHEME) :].partition("/")
    if not bucket:
        raise ValueError(f"Bucket name must be non-empty in {uri!r}: write s3://bucket/key")
    return bucket, key


def parse_object_uri(uri: str) -> tuple[str, str]:
    """Split the URI of one object: as ``parse_s3_uri``, but the key must not be empty.

    Raises:
        TypeError, ValueError: as ``parse_s3_uri``, and if there is no key.
    """
    bucket, key = parse_s3_uri(uri)
    if not key:
        raise ValueError(f"the S3 URI {uri!r} names a bucket but no object: write s3://{bucket}/key")
    return bucket, key


def path_text(path: str | os.PathLike[str]) -> str:
    r"""A path as text. On Windows, ``pathlib`` makes ``s3:\\bucket\\key`` of an object's path: slashes are put back."""
    return path.as_posix() if isinstance(path, PurePath) else os.fspath(path)


def display_uri(bucket: str, key: str = "") -> str:
    """The URI for a log line or an error text. Control characters are escaped, so that no key can forge a line."""
    uri = f"{_SCHEME}{bucket}/{key}" if key else f"{_SCHEME}{bucket}"
    return uri if uri.isprintable() else repr(uri)[1:-1]
