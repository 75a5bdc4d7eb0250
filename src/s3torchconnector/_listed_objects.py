"""The objects with a prefix, as datasets list them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from operator import attrgetter

from s3torchconnector._key_table import KeyTable
from s3torchconnector._s3bucket_key_data import S3BucketKeyData
from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer import is_listed_in_order, list_after, list_all
from s3torchconnector._types import ObjectInfo, ObjectInfos
from s3torchconnector._uri import display_uri

_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")  # the others of S3's archival storage classes can be read at once
_log = logging.getLogger(__name__)


class ListedObjects(Iterable[S3BucketKeyData]):
    """The objects with a prefix. Each iteration lists them again."""

    def __init__(self, bucket: str, prefix: str, client: S3Client, *, skip_archived: bool = False) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._client = client
        self._skip_archived = skip_archived

    def __iter__(self) -> Iterator[S3BucketKeyData]:
        return self.after(None)

    def after(self, key: str | None) -> Iterator[S3BucketKeyData]:
        """Those that come after a key in the listing, whether it is still there or not; None means all."""
        return (S3BucketKeyData(self._bucket, info.key, info) for page in self._pages(key) for info in page)

    def in_order(self) -> Iterable[S3BucketKeyData]:
        """The objects in an order that is the same in every listing, which that of directory buckets is not."""
        return self if is_listed_in_order(self._client._runtime, self._bucket) else self.table()

    def table(self) -> KeyTable:
        """The objects by index, in the same order in every process."""
        pages = self._pages()
        if not is_listed_in_order(self._client._runtime, self._bucket):
            pages = iter([ObjectInfos.of(sorted((info for page in pages for info in page), key=attrgetter("key")))])
        return KeyTable.of_pages(self._bucket, pages)

    def _pages(self, after: str | None = None) -> Iterator[ObjectInfos]:
        for page in self._listed(after):
            if 0 in page.sizes:
                # Consoles mark "directories" by empty objects of that name, which are not meant as samples.
                page = ObjectInfos.of(info for info in page if info.size or not info.key.endswith("/"))
            yield page

    def _listed(self, after: str | None) -> Iterator[ObjectInfos]:
        if not self._skip_archived:
            yield from self._listing(after, restore_status=False)
            return
        count = 0
        for page in self._listing(after, restore_status=True):
            readable = ObjectInfos.of(info for info in page if not is_archived(info))
            count += len(page) - len(readable)
            yield readable
        if count:
            uri = display_uri(self._bucket, self._prefix)
            _log.warning("%d archived objects below %s are left out; restored, they are samples again", count, uri)

    def _listing(self, after: str | None, *, restore_status: bool) -> Iterator[ObjectInfos]:
        place = (self._client._runtime, self._bucket, self._prefix)
        if after is not None:
            return list_after(*place, after, restore_status=restore_status)
        if restore_status:
            return list_all(*place, restore_status=True)
        return self._client.list_all(self._bucket, self._prefix)


def is_archived(info: ObjectInfo) -> bool:
    """Whether an object cannot be read: it is archived, and no copy of it was restored."""
    restored = info.restore_status is not None and info.restore_status.expiry is not None
    return info.storage_class in _ARCHIVES and not restored
