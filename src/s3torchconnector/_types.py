"""The values that travel between the layers and, by their documented names, to users."""

from __future__ import annotations

from typing import NamedTuple


class RestoreStatus(NamedTuple):
    """Whether an archived object is being restored, and until when the restored copy stays (seconds since 1970)."""

    in_progress: bool
    expiry: int | None = None


class ObjectInfo(NamedTuple):
    """One object as a listing describes it. ``size`` in bytes, ``last_modified`` in seconds since 1970 (UTC)."""

    key: str
    etag: str
    size: int
    last_modified: int
    storage_class: str | None = None
    restore_status: RestoreStatus | None = None


class HeadObjectResult(NamedTuple):
    """One object as HeadObject describes it: an ``ObjectInfo`` without the key."""

    etag: str
    size: int
    last_modified: int
    storage_class: str | None = None
    restore_status: RestoreStatus | None = None


class ListObjectResult(NamedTuple):
    """One page of a listing: its objects, and the common prefixes when a delimiter was given."""

    object_info: list[ObjectInfo]
    common_prefixes: list[str]


class UploadInfo(NamedTuple):
    """A multipart upload that was begun and not ended; ``initiated`` in seconds since 1970 (UTC)."""

    key: str
    upload_id: str
    initiated: int
