"""The last request of a multipart upload, whose answer must not be lost.

S3 may carry out CompleteMultipartUpload and the answer get lost. The retry is then refused with NoSuchUpload, although
all is well, or there is no attempt left: so we look at what is stored before calling it a failure. S3 may also answer
200, send blanks to keep the connection alive, and report an error in the body.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html

NoSuchUpload is also what an upload is refused with that somebody else has aborted, and what is stored then is an object
of an earlier save, or another writer's. To call that ours would lose the only copy of what was written, and a save that
failed can be repeated: so what is stored is ours by its mark, checksum or ETag, and by its size and time only where the
server tells nothing better and an answer may have been lost at all.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from s3torchconnector._errors import S3ConnectionError, S3Exception, S3NotFoundError, S3ProtocolError
from s3torchconnector._transfer._multipart import multipart_etag
from s3torchconnector._transfer._publication import Replacing
from s3torchconnector._uri import display_uri
from s3torchconnector._wire import (
    Caller,
    CompletedPart,
    Request,
    offered,
    parse_http_date,
    refuse_late_error,
    requests,
)

_log = logging.getLogger(__name__)


class Completion:
    """Completes one multipart upload, once.

    Args:
        request: completes it.
        parts: what was uploaded, in order.
        size: bytes of the whole object.
        begun: when the multipart upload was, by the server's clock, in seconds since 1970; 0 where it did not tell.
    """

    def __init__(self, request: Request, parts: Sequence[CompletedPart], size: int, begun: int) -> None:
        self._request = request
        self._checksums = offered(request.headers)
        self._etag = multipart_etag(parts)
        self._size = size
        self._begun = begun

    def run(self, caller: Caller, publication: Replacing) -> None:
        """Complete.

        Raises:
            S3ObjectExistsError: ``publication`` demands that there be no object, and there is.
            S3Exception: the object was not stored, or nobody can tell.
        """
        try:
            publication.publish(caller, self._request, refuse_late_error)
        except (S3NotFoundError, S3ConnectionError, S3ProtocolError) as error:
            if error.code == "NoSuchBucket":
                raise
            headers = self._look(caller, error)
            if headers is None or not (
                publication.recognises(self._request, headers) or self._is_ours(headers, _may_be_lost(error))
            ):
                raise
            _log.info("%s was completed by an attempt whose answer got lost", display_uri(*self._object()))

    def _object(self) -> tuple[str, str]:
        return self._request.bucket, self._request.key

    def _look(self, caller: Caller, error: S3Exception) -> Mapping[str, str] | None:
        """The headers of what is stored; None where there is nothing, or ``error`` now says that nobody can tell."""
        request = requests.head_object(*self._object(), checksum=bool(self._checksums))
        try:
            return caller.call(request, lambda response: response.headers)
        except S3NotFoundError:
            return None
        except S3Exception as failure:
            error.message += f". Whether the object was stored nevertheless could not be looked up ({failure})"
            return None

    def _is_ours(self, headers: Mapping[str, str], may_be_lost: bool) -> bool:
        """Whether headers are those of what we uploaded, where no mark tells."""
        if headers.get("content-length") != str(self._size):
            return False
        told, etag = offered(headers), headers.get("etag", "")
        for algorithm, crc in self._checksums.items():
            if algorithm in told:
                return told[algorithm] == crc
        if self._etag is not None and "-" in etag:
            return etag == self._etag
        if told or not may_be_lost:  # a server that keeps checksums would have kept ours
            return False
        # A server without checksums and with ETags of its own: the same size, written since we began. Both moments are
        # by its clock, and cut to whole seconds.
        return 0 < self._begun <= parse_http_date(headers.get("last-modified", ""))


def _may_be_lost(error: S3Exception) -> bool:
    """Whether S3 may have carried out an attempt whose answer did not come."""
    return not isinstance(error, S3NotFoundError) or error.resent or (error.attempts or 0) > 1
