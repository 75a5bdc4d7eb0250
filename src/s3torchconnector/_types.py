"""The values that the layers pass to one another and, by their documented names, to programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, overload

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


# Implemented in C: three times as fast as calling the class, and a page has a thousand of them.
make_info = partial(tuple.__new__, ObjectInfo)


class ObjectInfos(Sequence[ObjectInfo]):
    """Objects as a listing describes them, in a list for each field. An ``ObjectInfo`` is made when it is asked for.

    A tuple for each of millions of keys would cost more time than reading them, and the garbage collector would visit
    all of them again and again.

    Args:
        columns: a list for each field of ``ObjectInfo``, in the order of the fields, all of the same length.

    Attributes:
        keys, sizes: two of the columns.
    """

    __slots__ = ("_columns", "keys", "sizes")

    def __init__(self, *columns: list[Any]) -> None:
        self._columns = columns
        self.keys: list[str] = columns[0]
        self.sizes: list[int] = columns[2]

    @classmethod
    def of(cls, infos: Iterable[ObjectInfo]) -> ObjectInfos:
        """Make a sequence of these objects."""
        rows = list(infos)
        return cls(*([row[field] for row in rows] for field in range(len(ObjectInfo._fields))))

    def column(self, field: str) -> list[Any]:
        """One of the columns, by its field of ``ObjectInfo``."""
        return self._columns[ObjectInfo._fields.index(field)]

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[ObjectInfo]:
        return map(make_info, zip(*self._columns, strict=True))

    @overload
    def __getitem__(self, i: int) -> ObjectInfo: ...

    @overload
    def __getitem__(self, i: slice) -> ObjectInfos: ...

    def __getitem__(self, i: int | slice) -> ObjectInfo | ObjectInfos:
        if isinstance(i, slice):
            return ObjectInfos(*(column[i] for column in self._columns))
        return make_info([column[i] for column in self._columns])

    def __repr__(self) -> str:
        return f"ObjectInfos.of({list(self)!r})"


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


class ListObjectResult(NamedTuple):
    """One page of a listing: its objects, and the common prefixes if a delimiter was given."""

    object_info: list[ObjectInfo]
    common_prefixes: list[str]


class UploadInfo(NamedTuple):
    """An unfinished multipart upload. ``initiated`` is in seconds since 1970 (UTC)."""

    key: str
    upload_id: str
    initiated: int
