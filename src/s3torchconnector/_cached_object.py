"""An object, or a range of one, that is read from a cache if the cache has it, and stored there otherwise.

An object in the cache is loaded whole when it is first read. Other objects are requested from S3 as usual. If such an
object is small, or is read whole by one call, it is then stored.
"""

from __future__ import annotations

from typing import Any

from s3torchconnector._cache._format import digest_of
from s3torchconnector._etag import bare, is_weak
from s3torchconnector._s3bucket_key_data import S3BucketKeyData
from s3torchconnector._s3client import S3Client
from s3torchconnector._samples._items import RangeItem
from s3torchconnector._transfer import BytesByPosition, ObjectSource, ReadPolicy
from s3torchconnector.s3cache import S3Cache
from s3torchconnector.s3reader import S3Reader


class CachedObject(ObjectSource):
    """Bytes that a cache may have.

    Args:
        cache: the cache.
        source: the bytes in S3, always of one version.
        digest: what identifies them, see ``digest_of``.
        size: how many there are.
        small: this number of bytes, or fewer, is fetched whole, even if only a part is read.
    """

    def __init__(self, cache: S3Cache, source: ObjectSource, digest: bytes, size: int, small: int) -> None:
        self._cache = cache
        self._source = source
        self._digest = digest
        self._size = size
        self._small = small

    def open(self, policy: ReadPolicy, limit: int | None = None) -> BytesByPosition:
        is_fetched_whole = self._size <= self._small and policy.read_ahead and (limit is None or limit >= self._size)
        return CachedBytes(self, policy, limit, is_fetched_whole)


class Hits:
    """How many of the objects that were opened the cache had, since they were counted last."""

    count = 0

    def take(self) -> int:
        """The number; it is reset to zero."""
        count, self.count = self.count, 0
        return count


def cached(
    cache: S3Cache,
    source: ObjectSource,
    endpoint: str | None,
    item: S3BucketKeyData,
    client: S3Client,
    *,
    is_wrong: bool = False,
) -> ObjectSource:
    """What reads the bytes of ``source`` from the cache or into it, if size and ETag say exactly which they are.

    Args:
        cache, source: see ``CachedObject``.
        endpoint: of the server, if it is known.
        item: the object, or the range, as a manifest describes it.
        client: whose settings say what is small.
        is_wrong: whether what the cache has, if it has anything, is not to be used.
    """
    listed = item.object_info
    if listed is None or not bare(listed.etag) or is_weak(listed.etag):
        return source
    start, stop = (item.start, item.stop) if isinstance(item, RangeItem) else (0, listed.size)
    if start >= stop:
        return source
    digest = digest_of(endpoint or "", item.bucket, item.key, bare(listed.etag), start, stop)
    if is_wrong:
        cache._forget(digest)
    return CachedObject(cache, source, digest, stop - start, client.s3client_config.part_size)


def is_hit(reader: object) -> bool:
    """Whether what a reader reads was in the cache when it was opened."""
    return isinstance(reader, S3Reader) and getattr(reader._source(), "is_hit", False)


class CachedBytes:
    """The bytes by position, for a reader. See ``BytesByPosition``.

    Attributes:
        is_hit: whether they were in the cache when the reader was opened.
    """

    __slots__ = ("_data", "_found", "_from_s3", "_how", "_is_fetched_whole", "_place", "is_hit")

    def __init__(self, place: CachedObject, policy: ReadPolicy, limit: int | None, is_fetched_whole: bool) -> None:
        self._place = place
        self._how = policy, limit
        self._is_fetched_whole = is_fetched_whole
        self._found = place._cache._find(place._digest, place._size)
        self.is_hit = self._found is not None
        self._data: bytes | None = None  # all of them
        self._from_s3: BytesByPosition | None = None

    def _remote(self) -> BytesByPosition:
        if self._from_s3 is None:
            self._from_s3 = self._place._source.open(*self._how)
        return self._from_s3

    def _whole(self) -> bytes | None:
        """All bytes; None if they are not here, and too many to fetch for a read of some."""
        if self._data is None and self._found is not None:
            found, self._found = self._found, None
            self._data = self._place._cache._load(self._place._digest, found)
        if self._data is None and self._is_fetched_whole:
            self._data = self._fetched()
        return self._data

    def _fetched(self) -> bytes:
        place = self._place
        data = self._remote().read_to_end(0)
        if len(data) == place._size:
            place._cache._add(place._digest, data)
        return data

    def size(self) -> int:
        return self._place._size

    def prefetch(self, likely_size: int | None = None, most: int | None = None) -> None:
        if self._found is not None:
            self._place._cache._expect(self._found)
        elif self._data is None:
            self._remote().prefetch(likely_size, most)

    def await_head(self) -> None:
        if self._found is None and self._data is None:
            self._remote().await_head()

    def hand_out(self) -> int | None:
        if self._from_s3 is not None:
            self._from_s3.hand_out()
        return self._place._size

    def read_to_end(self, position: int) -> bytes:
        data = self._whole()
        if data is not None:
            return data[position:]  # without a copy if it is all
        return self._fetched() if position == 0 else self._remote().read_to_end(position)

    def read(self, position: int, count: int) -> bytes:
        data = self._whole()
        if data is not None:
            return data[position : position + count]
        return self._fetched() if position == 0 and count >= self.size() else self._remote().read(position, count)

    def readinto(self, position: int, view: memoryview) -> int:
        data = self._whole()
        if data is not None:
            part = memoryview(data)[position : position + len(view)]
            view[: len(part)] = part
            return len(part)
        count, place = self._remote().readinto(position, view), self._place
        if position == 0 and count == place._size:
            place._cache._add(place._digest, view[:count])
        return count

    def buffered(self, position: int) -> memoryview | bytes:
        if self._data is not None:
            return memoryview(self._data)[position:]
        return b"" if self._from_s3 is None else self._from_s3.buffered(position)

    def close(self) -> None:
        self._data = None
        if self._from_s3 is not None:
            self._from_s3.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return CachedBytes, (self._place, *self._how, self._is_fetched_whole)
