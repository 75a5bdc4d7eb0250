"""``S3BucketKeyData``: an object's bucket and key, and what a listing told about it."""

from __future__ import annotations

from typing import NamedTuple

from s3torchconnector._types import ObjectInfo


class S3BucketKeyData(NamedTuple):
    """One object of a dataset. It is also a tuple of its attributes.

    Attributes:
        bucket, key: where the object is.
        object_info: what a listing told about the object, or None. It saves requests.
    """

    bucket: str
    key: str
    object_info: ObjectInfo | None = None
