"""The requests of one upload: what each says, and what its response means.

    one part:         PutObject
    more parts:       CreateMultipartUpload, UploadPart (any number at a time), CompleteMultipartUpload
    an end without:   AbortMultipartUpload

The first and the last of the second line tell S3 about the object; the one that makes it appear goes through
``Completion``, which finds out the outcome if its response is lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from s3torchconnector._errors import S3Exception, S3NotFoundError, S3ProtocolError, S3ServiceError
from s3torchconnector._transfer.writing._abandoned_uploads import ADVICE
from s3torchconnector._transfer.writing._completion import Completion
from s3torchconnector._transfer.writing._completion_forms import CompletionForms
from s3torchconnector._transfer.writing._multipart import md5_etag, multipart_etag
from s3torchconnector._transfer.writing._upload_checksums import UploadChecksums
from s3torchconnector._transfer.writing._write_condition import Overwrite
from s3torchconnector._uri import display_uri
from s3torchconnector._wire import (
    Buffer,
    Caller,
    CancelToken,
    CompletedPart,
    Quirk,
    Response,
    demands_equal_parts,
    operations,
    parse_http_date,
    parse_upload_id,
    read_document,
    refuse_late_error,
)

_OF_GATEWAYS = "tx"  # how Ceph's and Swift's names of requests begin
_log = logging.getLogger(__name__)


class UploadRequests:
    """Sends the requests of one upload with ``caller``. Any thread may send a part.

    Args:
        options: the headers of ``S3WriteOptions``.
        summed: whether to compute the checksum even if uploads carry none.
        checksums: of the parts, if they are not those of bytes that are sent.
    """

    def __init__(
        self,
        caller: Caller,
        bucket: str,
        key: str,
        options: Mapping[str, str],
        condition: Overwrite | None = None,
        *,
        summed: bool = False,
        checksums: UploadChecksums | None = None,
    ) -> None:
        self.bucket = bucket
        self.key = key
        self._caller = caller
        self._options = options
        self._condition = Overwrite() if condition is None else condition
        self._checksums = checksums or UploadChecksums(caller, bucket, summed)
        self._is_gateway = False  # whether the server is Ceph's or Swift's
        self._begun = 0  # when the multipart upload was created, by the server's clock; 0 if it did not tell

    def checksum(self) -> str | None:
        """The checksum of all parts, as ``Algorithm.describe`` says it; None if nothing was summed."""
        return self._checksums.description()

    @property
    def may_start_over(self) -> bool:
        """Whether the server may refuse the completion for its checksums, and the object be written again without."""
        support = self._caller.checksums
        return self._checksums.are_carried and not (support.required or support.verifies_uploads(self.bucket))

    def put(self, body: Sequence[Buffer], cancel: CancelToken) -> None:
        """Store ``body``, which is the whole object.

        Raises:
            S3ObjectExistsError: the condition demands that there be no object, and there is one.
            S3Exception: the object was not stored, or nobody can tell.
        """
        self._checksums.sum_part(1, body)
        checksum = self._checksums.of_part(1, body)
        request = operations.put_object(self.bucket, self.key, body, options=self._options, checksum=checksum)
        marked = self._condition.marked(request)
        send = partial(self._condition.send, self._checksums, marked, lambda _, response: _etag_of(response), cancel)
        completion = Completion(marked, sum(map(len, body)), partial(md5_etag, body))
        completion.carry_out(self._caller, self._condition, send, cancel)

    def create(self, cancel: CancelToken) -> str:
        """Begin a multipart upload, and return its id."""
        request = operations.create_multipart_upload(
            self.bucket, self.key, options=self._options, checksum=self._checksums.announced()
        )
        return self._checksums.call(self._condition.marked(request), self._note_creation, cancel)

    def send_part(
        self, upload_id: Callable[[], str], number: int, body: Sequence[Buffer], cancel: CancelToken
    ) -> CompletedPart:
        """Send part ``number`` (from 1). It is summed while the id of the upload is on its way."""
        self._checksums.sum_part(number, body)
        identifier = upload_id()
        checksum = self._checksums.of_part(number, body)
        request = operations.upload_part(self.bucket, self.key, identifier, number, body, checksum=checksum)
        etag = self._checksums.call(request, _etag_of, cancel)
        return CompletedPart(number, etag, self._checksums.told_of_part(number))

    def complete(self, upload_id: str, parts: Sequence[CompletedPart], size: int) -> None:
        """Make the object of these parts, which have ``size`` bytes. It is not cancelled: see ``_upload``.

        Raises:
            as ``put``.
        """
        forms = CompletionForms(self._caller, self._checksums, parts)
        request = forms.request(self.bucket, self.key, upload_id)
        send = partial(self._condition.send, forms, request, refuse_late_error)
        completion = Completion(request, size, partial(multipart_etag, parts), self._begun)
        if self._is_gateway and not self._caller.checksums.verifies_uploads(self.bucket):
            self._condition.look(self._caller, self.bucket, self.key)  # see ``_write_condition``
        try:
            completion.carry_out(self._caller, self._condition, send)
        except S3ServiceError as error:
            if demands_equal_parts(error):
                self._caller.quirks.note(self.bucket, Quirk.EQUAL_PARTS)
            raise

    def abort(self, upload_id: str, seconds: float) -> None:
        """End a multipart upload without an object. If it may remain, a warning says so."""
        uri = display_uri(self.bucket, self.key)
        try:
            request = operations.abort_multipart_upload(self.bucket, self.key, upload_id)
            self._caller.call(request, read_document, limit=seconds)
        except S3NotFoundError:
            _log.debug("the multipart upload of %s has ended already", uri)
        except S3Exception as error:
            _log.warning("the multipart upload of %s could not be aborted: %s. %s", uri, error, ADVICE)

    def warn_of_creation(self) -> None:
        """Warn that S3 may have begun a multipart upload whose id did not arrive."""
        uri = display_uri(self.bucket, self.key)
        _log.warning("S3 did not respond whether a multipart upload of %s has begun. %s", uri, ADVICE)

    def _note_creation(self, response: Response) -> str:
        self._begun = parse_http_date(response.headers.get("date", ""))
        self._is_gateway = response.headers.get("x-amz-request-id", "").startswith(_OF_GATEWAYS)
        return parse_upload_id(read_document(response))


def _etag_of(response: Response) -> str:
    """The ETag of the stored object. If a 200 response has none, it is not from an S3 server, and nothing was
    stored.
    """
    etag = response.headers.get("etag")
    if not etag:
        raise S3ProtocolError("the response to an upload has no ETag: is the endpoint an S3 server?")
    return etag
