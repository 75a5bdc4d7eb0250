"""What is known of an object that is being read.

The first response pins its size and ETag. Every later request carries ``If-Match``, and every response is compared with
both, so that bytes of two versions never mix.
"""

from __future__ import annotations

import threading
from typing import Any

from s3torchconnector._errors import S3ObjectChangedError, S3ProtocolError
from s3torchconnector._transfer.reading._integrity import ObjectIntegrity
from s3torchconnector._uri import display_uri
from s3torchconnector._wire import Caller, Request, operations

_LARGEST = 2**50  # bytes; S3's own limit is 50 TB. A broken response must not make anybody allocate its size.


class ObjectVersion:
    """An object and, once a response has told them, the size (bytes) and ETag of the version that is being read."""

    def __init__(self, bucket: str, key: str, size: int | None = None, etag: str | None = None) -> None:
        self.bucket = bucket
        self.key = key
        self.size = size
        self.etag = etag
        self.integrity: ObjectIntegrity | None = None  # from the first request on
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return display_uri(self.bucket, self.key)

    def integrity_by(self, caller: Caller) -> ObjectIntegrity:
        """The checksum of the object, as far as ``caller``'s client wants it."""
        if self.integrity is None:
            with self._lock:
                if self.integrity is None:
                    self.integrity = ObjectIntegrity(caller.checksums, self.bucket, self.key)
        return self.integrity

    def request(self, start: int | None, stop: int | None) -> Request:
        """The request for a range of this version; see ``operations.get_object``."""
        return operations.get_object(self.bucket, self.key, start, stop, if_match=self.etag)

    def hold_to(self, size: int, etag: str | None) -> None:
        """Pin what a response says of the object, or compare it with what earlier ones said.

        Raises:
            S3ObjectChangedError, S3ProtocolError: see ``compare``.
        """
        with self._lock:
            self.compare(size, etag)
            self.size = size
            self.etag = self.etag or etag

    def compare(self, size: int, etag: str | None) -> None:
        """Compare what a response says of the object with what earlier ones said.

        Raises:
            S3ObjectChangedError: it is another version.
            S3ProtocolError: the same with another size, so one of the responses is wrong; or no object is so large.
        """
        if size > _LARGEST:
            raise S3ProtocolError(f"the response tells a size of {size} bytes, larger than any object can be")
        same_size, same_etag = self.size in (None, size), self.etag in (None, etag) or etag is None
        if same_size and same_etag:
            return
        uri = display_uri(self.bucket, self.key)
        if etag is not None and etag == self.etag:
            raise S3ProtocolError(f"two responses tell different sizes of {uri}, {self.size} and {size} bytes")
        before, advice = f"had {self.size} bytes (ETag {self.etag})", "open it again"
        if self.etag is None:  # nothing of it has been read: only a listing told its size
            before, advice = f"was listed with {self.size} bytes", "list its prefix again, by a new dataset,"
        raise S3ObjectChangedError(
            f"Service error: the object changed while it was being read: {uri} {before} and now has {size} (ETag "
            f"{etag}). Nothing of the new version was handed out; {advice} to read that"
        )

    def fork(self) -> ObjectVersion:
        """The same version for a forked child; its lock is new, so nobody holds it."""
        version = ObjectVersion(self.bucket, self.key, self.size, self.etag)
        version.integrity = None if self.integrity is None else self.integrity.fork()
        return version

    def __reduce__(self) -> tuple[Any, ...]:
        return ObjectVersion, (self.bucket, self.key, self.size, self.etag)
