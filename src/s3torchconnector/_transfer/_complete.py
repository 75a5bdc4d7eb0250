"""The last request of a multipart upload, whose answer must not be lost.

S3 may carry out CompleteMultipartUpload and the answer get lost. The retry is then refused with NoSuchUpload, although
all is well, or there is no attempt left: so we look at what is stored before calling it a failure. S3 may also answer
200, send blanks to keep the connection alive, and report an error in the body.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

from s3torchconnector._errors import S3ConnectionError, S3Exception, S3NotFoundError, S3ProtocolError
from s3torchconnector._transfer._multipart import multipart_etag
from s3torchconnector._transfer._publication import Replacing
from s3torchconnector._uri import display_uri
from s3torchconnector._wire import (
    Caller,
    CompletedPart,
    Request,
    parse_http_date,
    refuse_late_error,
    requests,
)

_log = logging.getLogger(__name__)
_CLOCK_STEP = 2.0  # seconds: Date and Last-Modified are cut to whole ones


class Completion:
    """Completes one multipart upload, once.

    Args:
        request: completes it.
        parts: what was uploaded, in order.
        size: bytes of the whole object.
        started: when the upload began, in seconds since 1970.
    """

    def __init__(self, request: Request, parts: Sequence[CompletedPart], size: int, started: float) -> None:
        self._request = request
        self._etag = multipart_etag(parts)
        self._size = size
        self._started = started

    def run(self, caller: Caller, publication: Replacing) -> None:
        """Complete.

        Raises:
            S3ObjectExistsError: ``publication`` demands that there be no object, and there is.
            S3Exception: the object was not stored.
        """
        try:
            publication.publish(caller, self._request, refuse_late_error)
        except (S3NotFoundError, S3ConnectionError, S3ProtocolError) as error:
            if error.code == "NoSuchBucket" or not self._is_stored(caller):
                raise
            _log.info("%s was completed by an attempt whose answer got lost", display_uri(*self._object()))

    def _object(self) -> tuple[str, str]:
        return self._request.bucket, self._request.key

    def _is_stored(self, caller: Caller) -> bool:
        """Whether what is at the key now is what we uploaded."""
        try:
            headers = caller.call(requests.head_object(*self._object()), lambda response: response.headers)
        except S3Exception:
            return False
        if headers.get("content-length") != str(self._size):
            return False
        if self._etag is not None and "-" in headers.get("etag", ""):
            return headers["etag"] == self._etag
        # A server with ETags of its own: the same size, written since we began.
        return parse_http_date(headers.get("last-modified", "")) >= self._started_by(headers) - _CLOCK_STEP

    def _started_by(self, headers: Mapping[str, str]) -> float:
        """When the upload began, by the server's clock."""
        now = time.time()
        return (parse_http_date(headers.get("date", "")) or now) - (now - self._started)
