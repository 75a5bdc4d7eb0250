"""The known facts about an object that is being read.

The first response pins its size and ETag. Every later request carries ``If-Match``, and every response is compared with
both, so that bytes of two versions never mix.

If a bucket keeps versions, the first response also contains the version id. If the object is replaced or deleted while
it is read, and the configuration says ``keep_version``, later requests name that version.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from s3torchconnector._errors import S3NotFoundError, S3ObjectChangedError, S3ProtocolError, S3ServiceError
from s3torchconnector._transfer.reading._integrity import ObjectIntegrity
from s3torchconnector._uri import display_uri
from s3torchconnector._wire import Caller, CancelToken, Exchange, Request, Response, operations

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
_LARGEST = 2**50  # bytes; S3's own limit is 50 TB. A broken response must not make anybody allocate its size.


class ObjectVersion:
    """An object and, once a response has told them, the size (bytes) and ETag of the version that is being read.

    Args:
        version_id: the version to read, if it is not the latest.
    """

    def __init__(
        self,
        bucket: str,
        key: str,
        size: int | None = None,
        etag: str | None = None,
        version_id: str | None = None,
    ) -> None:
        self.bucket = bucket
        self.key = key
        self.size = size
        self.etag = etag
        self.version_id = version_id  # that requests name
        self._begun: str | None = None  # the version of the first response
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
        request = operations.get_object(self.bucket, self.key, start, stop, if_match=self.etag)
        return request if self.version_id is None else operations.of_version(request, self.version_id)

    def head(self, *, checksum: bool = False) -> Request:
        """The request for what S3 knows of this version; see ``operations.head_object``."""
        etag = self.etag if checksum else None
        request = operations.head_object(self.bucket, self.key, checksum=checksum, if_match=etag)
        return operations.of_version(request, self.version_id)

    def call(
        self,
        caller: Caller,
        request: Callable[[], Request],
        consume: Callable[[Response], _T],
        cancel: CancelToken | None = None,
        sent: Exchange | None = None,
    ) -> _T:
        """``Caller.call``. If the object is another one now, it may go on with the version that was begun.

        Raises:
            S3Exception: see ``Caller.call``.
        """
        try:
            return caller.call(request, consume, cancel, sent)
        except (S3ObjectChangedError, S3NotFoundError) as error:
            if not self._goes_on(caller, error):
                raise
        return caller.call(request, consume, cancel)

    def _goes_on(self, caller: Caller, error: S3ServiceError) -> bool:
        """Whether later requests name the version that was begun; if only the configuration is against it, say so."""
        begun = self._begun
        if begun is None or error.code == "NoSuchVersion":
            return False
        if not caller.keeps_versions:
            error.message += (
                ". The bucket keeps versions: with keep_version=True in S3ClientConfig, a reader goes on with the one "
                "that it has begun"
            )
            return False
        if self.version_id is None:
            _log.info("%s was replaced or deleted: reading continues with its version %s", self, begun)
            self.version_id = begun
        return True

    def hold_to(self, size: int, etag: str | None, version_id: str | None = None) -> None:
        """Pin the size and ETag in a response, or compare them with those of earlier ones.

        Raises:
            S3ObjectChangedError, S3ProtocolError: see ``compare``.
        """
        with self._lock:
            self.compare(size, etag)
            self.size = size
            self.etag = self.etag or etag
            if self._begun is None and self.etag is not None:
                self._begun = version_id

    def compare(self, size: int, etag: str | None) -> None:
        """Compare the size and ETag in a response with those of earlier ones.

        Raises:
            S3ObjectChangedError: it is another version.
            S3ProtocolError: the same with another size, so one of the responses is wrong; or no object is so large.
        """
        if size > _LARGEST:
            raise S3ProtocolError(f"the response tells a size of {size} bytes, larger than any object can be")
        same_etag = self.etag is None or etag is None or self.etag == etag
        if same_etag and (self.size is None or self.size == size):
            return
        uri = display_uri(self.bucket, self.key)
        if etag is not None and etag == self.etag:
            raise S3ProtocolError(f"two responses tell different sizes of {uri}, {self.size} and {size} bytes")
        before, advice = f"had {self.size} bytes (ETag {self.etag})", "open it again"
        if self.etag is None:  # nothing of it has been read: only a listing told its size
            before, advice = f"was listed with {self.size} bytes", "list its prefix again, by a new dataset,"
        raise S3ObjectChangedError(
            f"Service error: the object changed while it was being read: {uri} {before} and now has {size} (ETag "
            f"{etag}). No byte of the new version was returned; {advice} to read it"
        )

    def fork(self) -> ObjectVersion:
        """The same version for a forked child; its lock is new, so no thread holds it."""
        return self._forked(ObjectVersion(self.bucket, self.key, self.size, self.etag, self.version_id))

    def _forked(self, version: ObjectVersion) -> ObjectVersion:
        version.integrity = None if self.integrity is None else self.integrity.fork()
        version._begun = self._begun
        return version

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = (self.bucket, self.key, self.size, self.etag, self.version_id)
        return ObjectVersion, arguments, {"_begun": self._begun}
