"""The objects with a prefix, as datasets list them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Any

from s3torchconnector._key_table import KeyTable
from s3torchconnector._listing_results import ObjectInfos
from s3torchconnector._s3bucket_key_data import S3BucketKeyData
from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer import is_listed_in_order, list_after, list_all
from s3torchconnector._types import ObjectInfo
from s3torchconnector._uri import display_uri

_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")  # the others of S3's archival storage classes can be read at once
WHAT_TO_CHECK = "prefixes end with /, keys are case-sensitive"  # if nothing is found
_log = logging.getLogger(__name__)


class ListedObjects(Iterator[S3BucketKeyData]):
    """The objects with a prefix, listed while they are taken. A copy goes on after the last one that was taken.

    Args:
        bucket, prefix, client: what is listed, and with what.
        skip_archived: whether objects are left out that cannot be read.
        warns: whether a listing without objects is logged.
    """

    def __init__(
        self, bucket: str, prefix: str, client: S3Client, *, skip_archived: bool = False, warns: bool = True
    ) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._client = client
        self._skip_archived = skip_archived
        self._warns = warns
        self._rest: Iterator[S3BucketKeyData] | None = None  # once the first was asked for
        self._last: str | None = None

    def __next__(self) -> S3BucketKeyData:
        """The next object.

        Raises:
            S3Exception: an error occurred accessing S3; the next call goes on at the same place.
        """
        if self._rest is None:
            self._rest = self.after(self._last)
        try:
            item = next(self._rest)
        except StopIteration:
            raise
        except BaseException:
            self._rest = None
            raise
        self._last = item.key
        return item

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rest": None}

    def after(self, key: str | None) -> Iterator[S3BucketKeyData]:
        """Those that come after a key in the listing, whether it is still there or not; None means all."""
        return (S3BucketKeyData(self._bucket, info.key, info) for page in self._pages(key) for info in page)

    def in_order(self) -> Iterable[S3BucketKeyData]:
        """The objects in an order that is the same in every listing. Directory buckets themselves do not have such an
        order.
        """
        return self if self._is_in_order() else self.table()

    def table(self) -> KeyTable:
        """The objects by index, in the same order in every process."""
        if self._rest is not None or self._last is not None:
            return KeyTable(self if self._is_in_order() else sorted(self, key=attrgetter("key")))
        pages = self._pages()
        if not self._is_in_order():
            pages = iter([ObjectInfos.of(sorted((info for page in pages for info in page), key=attrgetter("key")))])
        return KeyTable.of_pages(self._bucket, pages)

    def _is_in_order(self) -> bool:
        return is_listed_in_order(self._client._runtime, self._bucket)

    def _pages(self, after: str | None = None) -> Iterator[ObjectInfos]:
        is_empty = after is None and self._warns
        for page in self._listed(after):
            if 0 in page.sizes:
                # Consoles mark "directories" by empty objects of that name, which are not meant as samples.
                page = ObjectInfos.of(info for info in page if info.size or not info.key.endswith("/"))
            is_empty = is_empty and not len(page)
            yield page
        if is_empty:
            warn_of_nothing(self._bucket, self._prefix)

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
            _log.warning(
                "%d archived objects below %s are left out; once restored, they are included again", count, uri
            )

    def _listing(self, after: str | None, *, restore_status: bool) -> Iterator[ObjectInfos]:
        place = (self._client._runtime, self._bucket, self._prefix)
        if after is not None:
            return list_after(*place, after, restore_status=restore_status)
        if restore_status:
            return list_all(*place, restore_status=True)
        return self._client.list_all(self._bucket, self._prefix)


def warn_of_nothing(bucket: str, prefix: str) -> None:
    """Log that there is nothing with a prefix, which is a mistake more often than not."""
    _log.warning("there are no samples below %s: %s", display_uri(bucket, prefix), WHAT_TO_CHECK)


def is_archived(info: ObjectInfo) -> bool:
    """Whether an object cannot be read: it is archived, and no copy of it was restored."""
    restored = info.restore_status is not None and info.restore_status.expiry is not None
    return info.storage_class in _ARCHIVES and not restored
