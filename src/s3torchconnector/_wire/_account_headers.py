"""The headers that a client's configuration adds to all its requests: requester pays, the expected bucket owner, and
the customer's key.

A customer's key goes with every request that stores, reads or completes an object; a copy also names the key of its
source. It is added here, when a head is built, so that no ``Request`` holds it.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/ServerSideEncryptionCustomerKeys.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-owner-condition.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3AccessDeniedError, S3ConfigurationError, S3Exception
from s3torchconnector._identity import Endpoint
from s3torchconnector._late_imports import no_fork
from s3torchconnector._wire._operations import Request
from s3torchconnector._wire._service_errors import service_error

if TYPE_CHECKING:
    from s3torchconnector._customer_key import S3CustomerKey

_READING = frozenset({"GetObject", "HeadObject"})
_WRITING = frozenset({"PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"})
_COPYING = frozenset({"CopyObject", "UploadPartCopy"})
_STORING = frozenset({"PutObject", "CreateMultipartUpload", "CopyObject"})
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/blocking-unblocking-s3-c-encryption-gpb.html
_BLOCKED = (
    " Or the bucket refuses customer_key: those of Amazon S3 do since April 2026, unless their default encryption "
    "allows SSE-C (PutBucketEncryption with BlockedEncryptionTypes NONE)."
)


class AccountHeaders:
    """The headers of one client. Thread-safe."""

    def __init__(self, config: S3ClientConfig) -> None:
        self._requester_pays = config.requester_pays
        self._owner = config.expected_bucket_owner
        self._key = config.customer_key

    def of(self, request: Request, endpoint: Endpoint) -> dict[str, str]:
        """The headers for ``request``.

        Raises:
            S3ConfigurationError: the key cannot be had, or must not be sent there.
        """
        headers = self._keys(request)
        if headers:
            with no_fork:
                from s3torchconnector._customer_key import refuse_unencrypted  # here: few clients have a key

            refuse_unencrypted(endpoint.scheme, endpoint.host)
        if self._owner and request.operation != "CreateSession":
            headers["x-amz-expected-bucket-owner"] = self._owner
            if request.operation in _COPYING:
                headers["x-amz-source-expected-bucket-owner"] = self._owner
        if headers and endpoint.service == "s3express":
            raise S3ConfigurationError(
                f"{request}: directory buckets support neither SSE-C nor a check of their owner: leave out "
                "customer_key and expected_bucket_owner"
            )
        if self._requester_pays:
            headers["x-amz-request-payer"] = "requester"
        return headers

    def _keys(self, request: Request) -> dict[str, str]:
        source = self._source_key(request)
        if request.operation in _READING:
            return source._headers() if source else {}
        headers = self._key._headers() if self._key and request.operation in _WRITING | _COPYING else {}
        if source and request.operation in _COPYING:
            headers.update(source._headers("copy-source-"))
        return headers

    def _source_key(self, request: Request) -> S3CustomerKey | None:
        """The key of what is read or copied."""
        return self._key if request.source_key == "same" else request.source_key

    def redact(self, request: Request, error: S3Exception) -> None:
        """Remove the keys of ``request`` from an error that a good status came with."""
        for key in filter(None, (self._source_key(request), self._key)):
            redacted = key._redacted(error.message.encode(errors="surrogatepass"))
            error.message = redacted.decode(errors="surrogatepass")
            error.args = (error.message, *error.args[1:])

    def error_of(self, request: Request, status: int, headers: Mapping[str, str], body: bytes) -> S3Exception:
        """The exception for a response with an error status; see ``service_error``."""
        key = self._source_key(request)
        for each in filter(None, (key, self._key)):
            body = each._redacted(body)
        error = service_error(request, status, headers, body)
        if isinstance(error, S3AccessDeniedError):
            if key and request.operation in _READING | _COPYING:
                error.message += " Or the object is encrypted with another key than customer_key in S3ClientConfig."
            if self._key and request.operation in _STORING:
                error.message += _BLOCKED
            if self._owner:
                error.message += f" Or the bucket is not of the account {self._owner} (expected_bucket_owner)."
        return error
