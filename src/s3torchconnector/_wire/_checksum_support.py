"""What one client knows of its servers' checksums: what to send, and what to expect of downloads.

A server may reject, ignore or support checksums, and does not say which. So uploads carry one until a server refuses
it; and of downloads is remembered, by bucket, which kind of checksum its objects had, so that ranges can be summed
while they arrive. A bucket that has brought none for several objects is not asked any more, until one comes unasked.
Written by any thread without a lock: each change is one of a built-in dict, and a lost one costs a request.
"""

from __future__ import annotations

from s3torchconnector._errors import S3Exception
from s3torchconnector._wire._checksums import ALGORITHMS, Algorithm

_FRUITLESS = 3  # objects without a checksum, after which a bucket is not asked
_UNSUPPORTED = ("NotImplemented", "InvalidArgument", "InvalidRequest", "XNotImplemented")


class ChecksumSupport:
    """``mode`` is the configuration's ``checksum``."""

    def __init__(self, mode: str) -> None:
        self.off = mode == "off"
        self.required = mode == "required"
        self._uploads = not self.off
        self._likely: dict[str, Algorithm] = {}
        self._fruitless: dict[str, int] = {}

    def for_upload(self) -> Algorithm | None:
        """What uploads carry."""
        return ALGORITHMS[0] if self._uploads else None

    def refused(self, error: S3Exception) -> bool:
        """Whether the server's refusal was of a checksum, and later uploads, of this client, will have none."""
        named = "checksum" in error.message.lower() or error.status == 501
        if self.required or error.status not in (400, 501) or not named:
            return False
        if error.code is not None and error.code not in _UNSUPPORTED:
            return False  # it knows checksums, and found this one wrong
        self._uploads = False
        return True

    def likely(self, bucket: str) -> Algorithm | None:
        """What to sum ranges of an object with before its checksum is known; None where none is to be expected."""
        if self.off or (self._fruitless.get(bucket, 0) >= _FRUITLESS and not self.required):
            return None
        return self._likely.get(bucket, ALGORITHMS[0])

    def knows(self, bucket: str) -> bool:
        """Whether ``likely`` is more than a guess."""
        return bucket in self._likely

    def note(self, bucket: str, found: dict[Algorithm, int]) -> None:
        """These checksums came for an object of the bucket that was asked for them."""
        if not found:
            self._fruitless[bucket] = self._fruitless.get(bucket, 0) + 1
            return
        self._fruitless.pop(bucket, None)
        self._likely[bucket] = next(iter(found))
