"""``S3BucketKeyData``: an object's bucket and key, and what a listing told about it."""

from __future__ import annotations

from dataclasses import dataclass

from s3torchconnector._types import ObjectInfo


@dataclass(frozen=True)
class S3BucketKeyData:
    """One object of a dataset.

    Attributes:
        bucket, key: where the object is.
        object_info: what a listing told about the object, or None. It saves requests.
    """

    bucket: str
    key: str
    object_info: ObjectInfo | None = None
