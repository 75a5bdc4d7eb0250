"""What one client knows about its servers' checksums: which to send, and which to expect of downloads.

A server may reject, ignore or support checksums, and does not say which. So uploads to a bucket carry a checksum until
the server has refused one and accepted the same upload without. For downloads, the client remembers for each bucket
which kind of checksum its objects have, so that ranges can be summed while they arrive. A bucket whose last objects had
none is not asked any more, until a checksum comes unasked.

Any thread may write, without a lock: each change is one operation of a built-in dict, and a lost one costs a request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from s3torchconnector._errors import S3Exception
from s3torchconnector._uri import display_uri
from s3torchconnector._wire._checksums import ALGORITHMS, Algorithm
from s3torchconnector._wire._retry import WRONG_CHECKSUM_CODES

_log = logging.getLogger(__name__)
_FRUITLESS = 3  # objects without a checksum after which a bucket is not asked any more
_UNSUPPORTED = ("NotImplemented", "InvalidArgument", "InvalidRequest", "XNotImplemented")
# With these, a server refuses to complete an upload whose checksums it compares in another way, or does not keep.
_WRONG = ("InvalidDigest", *WRONG_CHECKSUM_CODES)
_UNLIKE = (*_UNSUPPORTED, "InvalidPart", "MalformedXML", *_WRONG)


class ChecksumSupport:
    """``mode`` is the configuration's ``checksum``; ``is_aws`` tells whether a bucket is Amazon's."""

    def __init__(self, mode: str, is_aws: Callable[[str], bool] = lambda bucket: False) -> None:
        self._is_aws = is_aws
        self.off = mode == "off"
        self.required = mode == "required"
        self._warned: set[str] = set()  # buckets that the log has named
        self._refusing: set[str] = set()  # buckets whose uploads carry no checksum any more
        self._refusing_whole: set[str] = set()  # buckets whose completions carry no checksum of the whole any more
        self._unasked: set[str] = set()  # buckets whose server refuses to be asked for checksums
        self._confirming: set[str] = set()  # buckets whose server sends the checksums of uploads back
        self._not_confirming: set[str] = set()  # those that the log has named because it does not
        self._likely: dict[str, Algorithm] = {}
        self._fruitless: dict[str, int] = {}
        self._unverified: set[str] = set()

    def for_upload(self, bucket: str) -> Algorithm | None:
        """The checksum that uploads to the bucket carry, if any."""
        return None if self.off or bucket in self._refusing else ALGORITHMS[0]

    def verifies_uploads(self, bucket: str) -> bool:
        """Whether the server is known to compare uploads with their checksums. Others may ignore conditions, too."""
        return bucket in self._confirming or self._is_aws(bucket)

    def takes_md5(self, bucket: str) -> bool:
        """Whether uploads carry a Content-MD5 as well: if they must be verified, and their checksum may be ignored."""
        return self.required and not self.verifies_uploads(bucket)

    def note_stored(self, bucket: str, algorithm: Algorithm, headers: Mapping[str, str]) -> None:
        """Note the response to an upload with a checksum: a server that compares it sends it back."""
        if algorithm.header in headers:
            self._confirming.add(bucket)
        elif bucket not in self._not_confirming and not self.verifies_uploads(bucket):
            self._not_confirming.add(bucket)
            _log.info(
                "%s: the server does not confirm the checksums of uploads, so it may store bytes that were damaged on "
                'the way. With checksum="required" in S3ClientConfig, uploads carry a Content-MD5 as well',
                display_uri(bucket),
            )

    def may_explain(self, error: S3Exception) -> bool:
        """Whether the server may have refused a request because of its checksum, so that a retry without can help.

        Google's server does not name them: it calls the signature of such a request wrong, for an "Invalid argument".
        """
        if self.required:
            return False
        message = error.message.lower()
        if error.status == 403:
            return error.code == "SignatureDoesNotMatch" and "invalid argument" in message
        named = "checksum" in message or error.status == 501
        # Any other code comes from a server that supports checksums and found this one wrong.
        return named and error.status in (400, 501) and error.code in (None, *_UNSUPPORTED)

    def may_explain_completion(self, error: S3Exception) -> bool:
        """Whether the server may have refused to complete an upload because of its checksums."""
        refused = error.status in (400, 501) and error.code in (None, *_UNLIKE)
        return not self.required and (refused or self.may_explain(error))

    def note_refused(self, bucket: str, error: S3Exception) -> bool:
        """Note that the server completed an upload in no form; whether later uploads to the bucket carry no checksums.

        They do not if the server named checksums as the reason: it may count the upload as one with checksums.
        """
        if error.code in _WRONG or "checksum" in error.message.lower():
            self.note_unsupported(bucket, error)
        return bucket in self._refusing

    def refuses_whole(self, bucket: str) -> bool:
        """Whether the server refuses the checksum of a whole multipart upload."""
        return bucket in self._refusing_whole

    def note_refused_whole(self, bucket: str, error: S3Exception) -> None:
        """Note that the server completed an upload only without the checksum of the whole; its parts had theirs."""
        if bucket not in self._refusing_whole:
            self._refusing_whole.add(bucket)
            _log.warning(
                "%s: the server does not accept the checksum of a whole multipart upload (%s). It verifies each part, "
                "but such objects may have no checksum that downloads can be compared with. Set "
                'checksum="required" in S3ClientConfig to make this an error',
                display_uri(bucket),
                error,
            )

    def note_unsupported(self, bucket: str, error: S3Exception) -> None:
        """Note that the server accepted an upload only without its checksum: later uploads to the bucket carry none.

        A 501 without an S3 error document may come from a gateway on the way: that applies to the one upload only.
        """
        if error.code is not None:
            self._refusing.add(bucket)
        if bucket not in self._warned:
            self._warned.add(bucket)
            _log.warning(
                "%s: the server does not accept checksums with uploads, so it does not verify what it stores (%s). Set "
                'checksum="required" in S3ClientConfig to make this an error',
                display_uri(bucket),
                error,
            )

    def note_unasked(self, bucket: str, error: S3Exception) -> None:
        """Note that the server sent an object only after it was not asked for its checksum: no later request asks."""
        if bucket not in self._unasked:
            self._unasked.add(bucket)
            _log.warning(
                "%s: the server does not accept requests that ask for an object's checksum (%s), so downloads are not "
                'verified. Set checksum="required" in S3ClientConfig to make this an error',
                display_uri(bucket),
                error,
            )
            self._unverified.add(bucket)

    def candidates(self, bucket: str) -> tuple[Algorithm, ...]:
        """The checksums to compute of an object's ranges while its own is unknown; none if the bucket has none."""
        if self.off or bucket in self._unasked or (self._fruitless.get(bucket, 0) >= _FRUITLESS and not self.required):
            return ()
        likely = self._likely.get(bucket)
        return ALGORITHMS if likely is None else (likely,)

    def note(self, bucket: str, found: dict[Algorithm, int]) -> None:
        """Note the checksums that S3 sent for an object of the bucket."""
        if not found:
            self._fruitless[bucket] = self._fruitless.get(bucket, 0) + 1
            return
        self._fruitless.pop(bucket, None)
        self._likely[bucket] = next(iter(found))

    def is_unverified(self, bucket: str) -> bool:
        """Whether an object of the bucket could not be verified before."""
        return bucket in self._unverified

    def note_unverified(self, bucket: str) -> bool:
        """Note that an object of the bucket could not be verified; True for the bucket's first."""
        first = bucket not in self._unverified
        self._unverified.add(bucket)
        return first
