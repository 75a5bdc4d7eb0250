"""What one client knows of its servers' checksums: what to send, and what to expect of downloads.

A server may reject, ignore or support checksums, and does not say which. So uploads to a bucket carry one until the
server has refused such a request and taken the same one without; and of downloads is remembered, by bucket, which kind
of checksum its objects had, so that ranges can be summed while they arrive. A bucket that has brought none for several
objects is not asked any more, until one comes unasked.
Written by any thread without a lock: each change is one of a built-in dict, and a lost one costs a request.
"""

from __future__ import annotations

import logging

from s3torchconnector._errors import S3Exception
from s3torchconnector._uri import display_uri
from s3torchconnector._wire._checksums import ALGORITHMS, Algorithm

_log = logging.getLogger(__name__)
_FRUITLESS = 3  # objects without a checksum, after which a bucket is not asked
_UNSUPPORTED = ("NotImplemented", "InvalidArgument", "InvalidRequest", "XNotImplemented")


class ChecksumSupport:
    """``mode`` is the configuration's ``checksum``."""

    def __init__(self, mode: str) -> None:
        self.off = mode == "off"
        self.required = mode == "required"
        self._warned: set[str] = set()  # buckets whose server does not take checksums, as the log says
        self._refusing: set[str] = set()  # those of them that are not sent any more
        self._likely: dict[str, Algorithm] = {}
        self._fruitless: dict[str, int] = {}
        self._unverified: set[str] = set()

    def for_upload(self, bucket: str) -> Algorithm | None:
        """What uploads to the bucket carry."""
        return None if self.off or bucket in self._refusing else ALGORITHMS[0]

    def may_be_why(self, error: S3Exception) -> bool:
        """Whether the server may have refused a request for its checksum: then it is worth sending without."""
        named = "checksum" in error.message.lower() or error.status == 501
        if self.required or error.status not in (400, 501) or not named:
            return False
        # With another code, it knows checksums, and found this one wrong.
        return error.code is None or error.code in _UNSUPPORTED

    def were_why(self, bucket: str, error: S3Exception) -> None:
        """The server took without a checksum what it had refused: later uploads to the bucket carry none.

        A 501 without S3's document may be a gateway's that knows nothing of checksums: that counts once.
        """
        if error.code is not None:
            self._refusing.add(bucket)
        if bucket not in self._warned:
            self._warned.add(bucket)
            _log.warning(
                "%s: the server does not take checksums with uploads (%s): what is stored there is not verified on "
                'arrival. With checksum="required" in S3ClientConfig this is an error',
                display_uri(bucket),
                error,
            )

    def candidates(self, bucket: str) -> tuple[Algorithm, ...]:
        """What to sum ranges of an object with before its checksum is known; nothing if none is to be expected."""
        if self.off or (self._fruitless.get(bucket, 0) >= _FRUITLESS and not self.required):
            return ()
        likely = self._likely.get(bucket)
        return ALGORITHMS if likely is None else (likely,)

    def note(self, bucket: str, found: dict[Algorithm, int]) -> None:
        """These checksums came for an object of the bucket that was asked for them."""
        if not found:
            self._fruitless[bucket] = self._fruitless.get(bucket, 0) + 1
            return
        self._fruitless.pop(bucket, None)
        self._likely[bucket] = next(iter(found))

    def is_unverified(self, bucket: str) -> bool:
        """Whether objects of the bucket are known not to be verified."""
        return bucket in self._unverified

    def note_unverified(self, bucket: str) -> bool:
        """An object of the bucket was not verified; whether it is the first."""
        first = bucket not in self._unverified
        self._unverified.add(bucket)
        return first
