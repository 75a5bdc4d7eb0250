"""The request that makes an object appear, and what to do if its response is lost.

S3 may carry out PutObject or CompleteMultipartUpload although the response is lost. There may be no attempt left, the
last one may be refused for another reason, and the retry of a completion is refused with NoSuchUpload although all is
well. So we look at the stored object before we report a failure. S3 may also send 200, then blanks to keep the
connection alive, and report an error in the body.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html

S3 also says NoSuchUpload if somebody else has aborted the upload. The stored object then belongs to an earlier save, or
to another writer. Taking it for ours would lose the only copy of what was written, whereas a failed save can be
repeated. So the mark, the checksum or the ETag decides whether the stored object is ours. Its size and time decide only
if the server returns nothing better, and only if a response may have been lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from s3torchconnector._errors import S3Exception, S3NotFoundError, S3ObjectChangedError, S3ObjectExistsError
from s3torchconnector._transfer.writing._write_condition import Overwrite, may_be_stored, stored_headers
from s3torchconnector._uri import display_uri
from s3torchconnector._wire import Caller, CancelToken, Request, offered, parse_http_date

_log = logging.getLogger(__name__)


class Completion:
    """One request that makes an object appear.

    Args:
        request: the request.
        size: bytes of the whole object.
        etag: computes the ETag that S3 gives the object, or None if that cannot be told.
        begun: when the upload was created, by the server's clock, in seconds since 1970; 0 if it did not tell.
    """

    def __init__(self, request: Request, size: int, etag: Callable[[], str | None], begun: int = 0) -> None:
        self._request = request
        self._checksums = offered(request.headers)
        self._etag = etag
        self._size = size
        self._begun = begun

    def carry_out(
        self,
        caller: Caller,
        condition: Overwrite,
        send: Callable[[], object],
        cancel: CancelToken | None = None,
    ) -> None:
        """Have ``send`` send the request. If that fails, look with ``caller`` whether it was carried out.

        Raises:
            S3ObjectExistsError: ``condition`` demands that there be no object, and there is one.
            S3Exception: the object was not stored, or nobody can tell.
        """
        try:
            send()
        except S3Exception as error:
            if not _worth_looking(error):
                raise
            headers = stored_headers(caller, self._request, error, cancel)
            if headers is None:
                raise
            ours = condition.recognises(self._request, headers)
            if not condition.marks:
                ours = self._is_ours(headers, may_be_stored(error))
            if not ours:
                if may_be_stored(error):
                    error.message += (
                        f". The object that is stored now {_facts(headers)} could not be identified as this one"
                    )
                raise
            name = display_uri(self._request.bucket, self._request.key)
            _log.info("%s was stored by an attempt whose response was lost", name)

    def _is_ours(self, headers: Mapping[str, str], may_be_stored: bool) -> bool:
        """Whether headers match what we uploaded, if there is no mark."""
        if headers.get("content-length") != str(self._size):
            return False
        told, etag = offered(headers), headers.get("etag", "")
        for algorithm, crc in self._checksums.items():
            if algorithm in told:
                return told[algorithm] == crc
        expected = self._etag()
        if expected is not None and (etag == expected or ("-" in etag and not _is_opaque(headers))):
            return etag == expected
        if told or not may_be_stored:  # a server that keeps checksums would have kept ours
            return False
        # A server without checksums, and with its own kind of ETags: the same size, written since we began. Both times
        # are by its clock, and cut to whole seconds.
        return 0 < self._begun <= parse_http_date(headers.get("last-modified", ""))


def _worth_looking(error: S3Exception) -> bool:
    if isinstance(error, (S3ObjectExistsError, S3ObjectChangedError)) or error.code == "NoSuchBucket":
        return False
    return isinstance(error, S3NotFoundError) or may_be_stored(error)


def _is_opaque(headers: Mapping[str, str]) -> bool:
    """Whether an object has an ETag that cannot be computed, because it is encrypted by KMS or a customer's key.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
    """
    by_kms = headers.get("x-amz-server-side-encryption", "").startswith("aws:kms")
    return by_kms or "x-amz-server-side-encryption-customer-algorithm" in headers


def _facts(headers: Mapping[str, str]) -> str:
    return f"({headers.get('content-length', '?')} bytes, of {headers.get('last-modified', 'an unknown time')})"
