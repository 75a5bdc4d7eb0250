"""The names of many objects in little memory.

Ten million ``S3BucketKeyData`` take gigabytes. A forked ``DataLoader`` worker that looks at one copies the page of
memory it is on, because Python counts references in the objects themselves. This table keeps the same in four flat
arrays. Forked workers share them with their parent, and spawned workers are sent them as four blocks of bytes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from itertools import accumulate, groupby, islice
from operator import attrgetter
from typing import overload

from s3torchconnector._s3bucket_key_data import S3BucketKeyData
from s3torchconnector._types import ObjectInfo, ObjectInfos

_UNKNOWN = -1
_BATCH = 1000


class KeyTable:
    """An immutable sequence of objects: buckets, keys and, if a listing told them, sizes."""

    def __init__(self, objects: Iterable[S3BucketKeyData] = ()) -> None:
        self._buckets: list[str] = []
        self._numbers: dict[str, int] = {}  # bucket to its index in _buckets
        self._bucket_of = array("I")
        self._keys = bytearray()
        self._ends = array("Q", [0])
        self._sizes = array("q")
        for bucket, items in groupby(objects, attrgetter("bucket")):
            while batch := list(islice(items, _BATCH)):
                infos = [item.object_info for item in batch]
                sizes = [_UNKNOWN if info is None else info.size for info in infos]
                self._add(bucket, [item.key for item in batch], sizes)

    @classmethod
    def of_pages(cls, bucket: str, pages: Iterable[ObjectInfos]) -> KeyTable:
        """Make the table of a listing, page by page: an object for each of millions of keys would take much longer."""
        table = cls()
        for page in pages:
            table._add(bucket, page.keys, page.sizes)
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
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, i: int) -> S3BucketKeyData: ...

    @overload
    def __getitem__(self, i: slice) -> list[S3BucketKeyData]: ...

    def __getitem__(self, i: int | slice) -> S3BucketKeyData | list[S3BucketKeyData]:
        """Return the object at ``i``, which may be negative, or those of a slice.

        Raises:
            IndexError: there is no such object.
        """
        count = len(self)
        if isinstance(i, slice):
            return [self[each] for each in range(*i.indices(count))]
        if not -count <= i < count:
            raise IndexError(f"index {i} is out of range for a dataset of {count} objects")
        i %= count
        key = self._keys[self._ends[i] : self._ends[i + 1]].decode("utf-8", "surrogatepass")
        size = self._sizes[i]
        info = None if size == _UNKNOWN else ObjectInfo(key, "", size, 0)
        return S3BucketKeyData(self._buckets[self._bucket_of[i]], key, info)
