"""One object in exactly the version that a listing named: another version is an error before any of its bytes are seen.

The first response is compared with the listing. A condition (``If-Match``) would be no better: some servers ignore it,
and the error of those that do not would say less.
"""

from __future__ import annotations

from typing import Any

from s3torchconnector._errors import S3ObjectChangedError
from s3torchconnector._etag import bare
from s3torchconnector._transfer.engine._ranges import Range
from s3torchconnector._transfer.engine._runtime import OpenRuntime
from s3torchconnector._transfer.reading._object_reader import ObjectReader
from s3torchconnector._transfer.reading._object_source import ObjectSource
from s3torchconnector._transfer.reading._object_version import ObjectVersion
from s3torchconnector._transfer.reading._range_reader import RangeReader
from s3torchconnector._transfer.reading._read_policy import ReadPolicy
from s3torchconnector._types import ObjectInfo
from s3torchconnector._uri import display_uri


class PinnedObject(ObjectSource):
    """An ``ObjectSource`` of the listed version."""

    def __init__(self, open_runtime: OpenRuntime, bucket: str, key: str, listed: ObjectInfo) -> None:
        super().__init__(open_runtime, bucket, key, listed)
        self._listed = listed

    def open(self, policy: ReadPolicy, limit: int | None = None) -> ObjectReader:
        version = _PinnedVersion(self._bucket, self._key, self._listed.size, self._listed.etag)
        return ObjectReader(self._open_runtime, version, policy, self._listed.size, limit)


class PinnedRange(ObjectSource):
    """Some bytes of the listed version, as if they were an object: positions count from ``start``."""

    def __init__(
        self, open_runtime: OpenRuntime, bucket: str, key: str, listed: ObjectInfo, start: int, stop: int
    ) -> None:
        super().__init__(open_runtime, bucket, key, listed)
        self._listed = listed
        self._range = Range(start, stop)

    def open(self, policy: ReadPolicy, limit: int | None = None) -> RangeReader:
        start, stop = self._range
        end = stop if limit is None else min(stop, start + limit)
        version = _PinnedVersion(self._bucket, self._key, self._listed.size, self._listed.etag)
        return RangeReader(
            ObjectReader(self._open_runtime, version, policy, self._listed.size, end, start), start, stop
        )


class _PinnedVersion(ObjectVersion):
    """An ``ObjectVersion`` that knows size and ETag before the first response; the ETag may be empty."""

    def __init__(
        self,
        bucket: str,
        key: str,
        listed_size: int,
        listed_etag: str,
        size: int | None = None,
        etag: str | None = None,
        version_id: str | None = None,
    ) -> None:
        super().__init__(bucket, key, size, etag, version_id)
        self._listed = (listed_size, listed_etag)

    def compare(self, size: int, etag: str | None) -> None:
        listed_size, listed_etag = self._listed
        same_etag = etag is None or not listed_etag or etag == listed_etag or bare(etag) == bare(listed_etag)
        if not same_etag or size != listed_size:
            uri = display_uri(self.bucket, self.key)
            raise S3ObjectChangedError(
                f"Service error: the object was overwritten after it was listed: {uri} had {listed_size} bytes (ETag "
                f"{listed_etag}) in the manifest and now has {size} (ETag {etag}). No byte of the new version was "
                "returned. Restore the listed version, or start again with a new manifest",
                bucket=self.bucket,
                key=self.key,
            )
        super().compare(size, etag)

    def fork(self) -> ObjectVersion:
        return self._forked(_PinnedVersion(self.bucket, self.key, *self._listed, self.size, self.etag, self.version_id))

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = (self.bucket, self.key, *self._listed, self.size, self.etag, self.version_id)
        return _PinnedVersion, arguments, {"_begun": self._begun}
