"""The names of many objects in little memory.

Ten million ``S3BucketKeyData`` take gigabytes. A forked ``DataLoader`` worker that looks at one copies the page of
memory it is on, because Python counts references in the objects themselves. This table keeps the same in flat arrays:
20 bytes and the key for each object, and 30 bytes more if a listing described it. Forked workers share them with their
parent, and spawned workers are sent them as blocks of bytes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, groupby, islice
from operator import attrgetter, ne
from typing import Any, overload

from s3torchconnector._etag_columns import EtagColumns
from s3torchconnector._listing_results import ObjectInfos, make_info
from s3torchconnector._s3bucket_key_data import S3BucketKeyData
from s3torchconnector._types import ObjectInfo

_UNKNOWN = -1
_BATCH = 1000


class KeyTable(Sequence[S3BucketKeyData]):
    """An immutable sequence of objects: buckets, keys and, if a listing described them, its description."""

    def __init__(self, objects: Iterable[S3BucketKeyData] = ()) -> None:
        self._buckets: list[str] = []
        self._numbers: dict[str, int] = {}  # bucket to its index in _buckets
        self._bucket_of = array("I")
        self._keys = bytearray()
        self._ends = array("Q", [0])
        self._sizes = array("q")
        self._listed = _Listed()
        for bucket, items in groupby(objects, attrgetter("bucket")):
            while batch := list(islice(items, _BATCH)):
                infos = [item.object_info for item in batch]
                sizes = [_UNKNOWN if info is None else info.size for info in infos]
                self._add(bucket, [item.key for item in batch], sizes)
                self._listed.add_each(infos)

    @classmethod
    def of_pages(cls, bucket: str, pages: Iterable[ObjectInfos]) -> KeyTable:
        """Make the table of a listing, page by page: an object for each of millions of keys would take much longer."""
        table = cls()
        for page in pages:
            table._add(bucket, page.keys, page.sizes)
            table._listed.add(page)
        return table

    def _add(self, bucket: str, keys: list[str], sizes: list[int]) -> None:
        number = self._numbers.setdefault(bucket, len(self._buckets))
        if number == len(self._buckets):
            self._buckets.append(bucket)
        self._bucket_of.extend([number] * len(keys))
        encoded = [key.encode("utf-8", "surrogatepass") for key in keys]
        ends = accumulate(map(len, encoded), initial=len(self._keys))
        next(ends)
        self._ends.extend(ends)
        self._keys += b"".join(encoded)
        self._sizes.extend(sizes)

    def __len__(self) -> int:
        return len(self._sizes)

    def __iter__(self) -> Iterator[S3BucketKeyData]:
        return map(self._at, range(len(self)))

    @overload
    def __getitem__(self, i: int) -> S3BucketKeyData: ...

    @overload
    def __getitem__(self, i: slice) -> list[S3BucketKeyData]: ...

    def __getitem__(self, i: int | slice) -> S3BucketKeyData | list[S3BucketKeyData]:
        """Return the object at ``i``, which may be negative, or those of a slice.

        Raises:
            IndexError: there is no such object.
        """
        count = len(self._sizes)
        if isinstance(i, slice):
            return [self[each] for each in range(*i.indices(count))]
        if not -count <= i < count:
            raise IndexError(f"index {i} is out of range for a dataset of {count} objects")
        return self._at(i % count)

    def _at(self, i: int) -> S3BucketKeyData:
        key = self._keys[self._ends[i] : self._ends[i + 1]].decode("utf-8", "surrogatepass")
        size = self._sizes[i]
        info = None if size == _UNKNOWN else self._listed.info(i, key, size)
        return S3BucketKeyData(self._buckets[self._bucket_of[i]], key, info)


class _Listed:
    """The descriptions of objects in listings, except key and size; empty as long as there is none."""

    def __init__(self) -> None:
        self._etags = EtagColumns()
        self._quoted: bool | None = None  # servers quote all ETags, or none
        self._times = array("q")
        self._kind_of = array("I")
        self._kinds: list[tuple[Any, ...]] = []  # storage class and restore status: few different ones
        self._numbers: dict[tuple[Any, ...], int] = {}  # one of them to its index in _kinds
        self._before = 0  # objects before the first that was listed

    def add_each(self, infos: list[ObjectInfo | None]) -> None:
        """Add objects. Each may have been listed."""
        if self._quoted is None and not any(infos):
            self._before += len(infos)
        else:
            self.add(ObjectInfos.of(_NOT_LISTED if info is None else info for info in infos))

    def add(self, page: ObjectInfos) -> None:
        """Add the objects of a page."""
        etags = page.column("etag")
        if self._quoted is None:
            self._quoted = '"' in "".join(etags)
            before, self._before = self._before, 0
            self.add(ObjectInfos.of([_NOT_LISTED] * before))
        self._etags.extend([etag.strip('"') for etag in etags] if self._quoted else etags)
        self._times.extend(page.column("last_modified"))
        kinds = list(zip(page.column("storage_class"), page.column("restore_status"), strict=True))
        if any(map(ne, islice(kinds, 1, None), kinds)):
            self._kind_of.extend(map(self._number, kinds))
        else:  # as on nearly all pages
            self._kind_of.extend([self._number(kind) for kind in kinds[:1]] * len(kinds))

    def _number(self, kind: tuple[Any, ...]) -> int:
        number = self._numbers.setdefault(kind, len(self._kinds))
        if number == len(self._kinds):
            self._kinds.append(kind)
        return number

    def info(self, i: int, key: str, size: int) -> ObjectInfo:
        """The listing's description of the object with number ``i``."""
        etag = self._etags[i]
        quoted = f'"{etag}"' if self._quoted and etag else etag
        return make_info((key, quoted, size, self._times[i], *self._kinds[self._kind_of[i]]))


_NOT_LISTED = ObjectInfo("", "0" * 32, 0, 0)  # never seen: the size says that nothing is known
