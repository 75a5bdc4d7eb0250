"""The values that the layers pass to one another and, by their documented names, to programs."""

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as ReadableBuffer
    from _typeshed import WriteableBuffer as WriteableBuffer
else:  # for typing.get_type_hints: there is no such module at run time
    ReadableBuffer = WriteableBuffer = Any


class RestoreStatus(NamedTuple):
    """Whether an archived object is being restored, and when the restored copy expires (seconds since 1970)."""

    in_progress: bool
    expiry: int | None = None


class ObjectInfo(NamedTuple):
    """One object as a listing describes it.

    Attributes:
        key, etag: the object's key, and S3's name of this version.
        size: in bytes.
        last_modified: in seconds since 1970 (UTC).
        storage_class, restore_status: None if S3 does not tell.

    Example:
        >>> from s3torchconnector import S3Client
        >>> [page] = S3Client("us-east-1").list_objects("my-bucket", "images/")
        >>> [(info.key, info.size) for info in page.object_info]
        [('images/0.png', 10), ('images/1.png', 10), ('images/2.png', 10)]
    """

    key: str
    etag: str
    size: int
    last_modified: int
    storage_class: str | None = None
    restore_status: RestoreStatus | None = None


class HeadObjectResult(NamedTuple):
    """One object as HeadObject describes it: an ``ObjectInfo`` without the key.

    Attributes:
        archive_status: ``"ARCHIVE_ACCESS"`` or ``"DEEP_ARCHIVE_ACCESS"`` if S3 Intelligent-Tiering has archived the
            object, so that it must be restored before it is read; else None. No listing tells this.
            https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html
    """

    etag: str
    size: int
    last_modified: int
    storage_class: str | None = None
    restore_status: RestoreStatus | None = None
    archive_status: str | None = None
