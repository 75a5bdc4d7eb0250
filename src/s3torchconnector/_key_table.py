"""Many objects' names in little memory.

Ten million ``S3BucketKeyData`` take gigabytes, and every DataLoader worker that looks at one copies the pages it
shares with its parent, because Python counts references in the objects themselves. This table keeps the same in
four flat arrays: a forked worker shares them for good, and a spawned one is sent them as four blocks of bytes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

from s3torchconnector._s3bucket_key_data import S3BucketKeyData
from s3torchconnector._types import ObjectInfo

_UNKNOWN = -1


class KeyTable:
    """An immutable sequence of objects: buckets, keys and, where a listing told them, sizes."""

    def __init__(self, objects: Iterable[S3BucketKeyData]) -> None:
        self._buckets: list[str] = []
        self._bucket_of = array("I")
        self._keys = bytearray()
        self._ends = array("Q", [0])
        self._sizes = array("q")
        numbers: dict[str, int] = {}
        for item in objects:
            number = numbers.setdefault(item.bucket, len(numbers))
            if number == len(self._buckets):
                self._buckets.append(item.bucket)
            self._bucket_of.append(number)
            self._keys += item.key.encode("utf-8", "surrogatepass")
            self._ends.append(len(self._keys))
            self._sizes.append(_UNKNOWN if item.object_info is None else item.object_info.size)

    def __len__(self) -> int:
        return len(self._sizes)

    def __iter__(self) -> Iterator[S3BucketKeyData]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, i: int) -> S3BucketKeyData:
        """The object at ``i``, which may be negative.

        Raises:
            IndexError: there is none.
        """
        count = len(self)
        if not -count <= i < count:
            raise IndexError(f"index {i} is out of range for a dataset of {count} objects")
        i %= count
        key = self._keys[self._ends[i] : self._ends[i + 1]].decode("utf-8", "surrogatepass")
        size = self._sizes[i]
        info = None if size == _UNKNOWN else ObjectInfo(key, "", size, 0)
        return S3BucketKeyData(self._buckets[self._bucket_of[i]], key, info)
