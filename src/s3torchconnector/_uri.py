"""S3 URIs: ``s3://bucket/key``. Keys are used as they are: S3 knows no escaping, no ``.`` and no ``..``.

The bucket may be the ARN of an access point, which AWS's consoles print with a slash in it. With a colon it is the same
access point, and a name without a slash, which is what all code after this module gets.
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
"""

from __future__ import annotations

import os
import re
from pathlib import PurePath

_SCHEME = "s3://"
_ARN = (  # compiled when it is needed: few buckets are named so
    r"arn:[^:/]+:(?:s3|s3-object-lambda):[^:/]*:[^:/]*:accesspoint[:/][^:/]+(?=/|\Z)"
    r"|arn:[^:/]+:s3-outposts:[^:/]*:[^:/]*:outpost[:/][^:/]+[:/]accesspoint[:/][^:/]+(?=/|\Z)"
)


class NotAStringError(TypeError, ValueError):
    """Something that is no string was given as a URI. For programs written for 1.5.0, None is a wrong value."""


def parse_s3_uri(uri: str) -> tuple[str, str]:
    """Split an S3 URI into bucket and key. The key may be empty, to mean a whole bucket.

    The bucket may be the ARN of an access point, of any kind. It is returned with colons in place of its slashes.

    Raises:
        TypeError: ``uri`` is not a string.
        ValueError: it is not an ``s3://`` URI, or it names no bucket.

    >>> from s3torchconnector._uri import parse_s3_uri
    >>> parse_s3_uri("s3://bucket/a/b.pt")
    ('bucket', 'a/b.pt')
    >>> parse_s3_uri("s3://arn:aws:s3:us-west-2:123456789012:accesspoint/my-ap/images/")
    ('arn:aws:s3:us-west-2:123456789012:accesspoint:my-ap', 'images/')
    """
    if not isinstance(uri, str):
        raise NotAStringError(f"an S3 URI is a string such as 's3://bucket/key', not {type(uri).__name__}")
    if uri[: len(_SCHEME)].lower() != _SCHEME:
        raise ValueError(f"Only s3:// URIs are supported, not {uri!r}: write s3://bucket/key")
    bucket, _, key = without_slash_in_arn(uri[len(_SCHEME) :]).partition("/")
    if not bucket:
        raise ValueError(f"Bucket name must be non-empty in {uri!r}: write s3://bucket/key")
    return bucket, key


def without_slash_in_arn(path: str) -> str:
    """``bucket/key``, with colons in place of the slashes of an ARN that is the bucket."""
    arn = re.match(_ARN, path) if path.startswith("arn:") else None
    return path if arn is None else arn[0].replace("/", ":") + path[arn.end() :]


def is_arn(bucket: str) -> bool:
    """Whether the bucket is named by the ARN of an access point."""
    return bucket.startswith("arn:") and re.fullmatch(_ARN, bucket) is not None


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
