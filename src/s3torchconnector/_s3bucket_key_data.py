"""``S3BucketKeyData``: an object's place, and what a listing told of it."""

from __future__ import annotations

from dataclasses import dataclass

from s3torchconnector._types import ObjectInfo


@dataclass(frozen=True)
class S3BucketKeyData:
    """One object of a dataset. ``object_info`` is there where a listing was its source."""

    bucket: str
    key: str
    object_info: ObjectInfo | None = None
