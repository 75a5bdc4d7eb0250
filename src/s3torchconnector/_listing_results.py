"""What listings return: pages of objects and of uploads, and objects in columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, overload

from s3torchconnector._types import ObjectInfo

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


class ListObjectResult(NamedTuple):
    """One page of a listing: its objects, and the common prefixes if a delimiter was given."""

    object_info: list[ObjectInfo]
    common_prefixes: list[str]


class UploadInfo(NamedTuple):
    """An unfinished multipart upload. ``initiated`` is in seconds since 1970 (UTC)."""

    key: str
    upload_id: str
    initiated: int
