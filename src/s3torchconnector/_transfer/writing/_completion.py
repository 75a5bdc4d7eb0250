"""The request that makes an object appear, whose response must not be lost.

S3 may carry out PutObject or CompleteMultipartUpload and the response get lost. There may be no attempt left, the last
one may be refused for another reason, and the retry of a completion is refused with NoSuchUpload, although all is well:
so we look at what is stored before calling it a failure. S3 may also answer 200, send blanks to keep the connection
alive, and report an error in the body.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html

NoSuchUpload is also what an upload is refused with that somebody else has aborted, and what is stored then is an object
of an earlier save, or another writer's. To call that ours would lose the only copy of what was written, and a save that
failed can be repeated: so what is stored is ours by its mark, checksum or ETag, and by its size and time only where the
server tells nothing better and a response may have been lost at all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from s3torchconnector._errors import S3Exception, S3NotFoundError, S3ObjectChangedError, S3ObjectExistsError
from s3torchconnector._transfer.writing._write_condition import Overwrite, look, may_be_stored
from s3torchconnector._uri import display_uri
from s3torchconnector._wire import Caller, CancelToken, Request, offered, parse_http_date

_log = logging.getLogger(__name__)


class Completion:
    """One request that makes an object appear.

    Args:
        request: does.
        size: bytes of the whole object.
        etag: computes the ETag that S3 gives the object, where that can be told.
        begun: when the upload was, by the server's clock, in seconds since 1970; 0 where it did not tell.
    """

    def __init__(self, request: Request, size: int, etag: Callable[[], str | None], begun: int = 0) -> None:
        self._request = request
        self._checksums = offered(request.headers)
        self._etag = etag
        self._size = size
        self._begun = begun

    def run(
        self,
        caller: Caller,
        condition: Overwrite,
        publish: Callable[[], object],
        cancel: CancelToken | None = None,
    ) -> None:
        """Have ``publish`` send the request, and look with ``caller`` whether it was carried out where that fails.

        Raises:
            S3ObjectExistsError: ``condition`` demands that there be no object, and there is.
            S3Exception: the object was not stored, or nobody can tell.
        """
        try:
            publish()
        except S3Exception as error:
            if not _worth_looking(error):
                raise
            headers = look(caller, self._request, error, cancel)
            if headers is None:
                raise
            ours = condition.recognises(self._request, headers)
            if not condition.marks:
                ours = self._is_ours(headers, may_be_stored(error))
            if not ours:
                if may_be_stored(error):
                    error.message += f". What is stored there now {_facts(headers)} cannot be told to be this object"
                raise
            name = display_uri(self._request.bucket, self._request.key)
            _log.info("%s was completed by an attempt whose answer got lost", name)

    def _is_ours(self, headers: Mapping[str, str], may_be_stored: bool) -> bool:
        """Whether headers are those of what we uploaded, where no mark tells."""
        if headers.get("content-length") != str(self._size):
            return False
        told, etag = offered(headers), headers.get("etag", "")
        for algorithm, crc in self._checksums.items():
            if algorithm in told:
                return told[algorithm] == crc
        expected = self._etag()
        if expected is not None and ("-" in etag or etag == expected):
            return etag == expected
        if told or not may_be_stored:  # a server that keeps checksums would have kept ours
            return False
        # A server without checksums and with ETags of its own: the same size, written since we began. Both moments are
        # by its clock, and cut to whole seconds.
        return 0 < self._begun <= parse_http_date(headers.get("last-modified", ""))


def _worth_looking(error: S3Exception) -> bool:
    if isinstance(error, (S3ObjectExistsError, S3ObjectChangedError)) or error.code == "NoSuchBucket":
        return False
    return isinstance(error, S3NotFoundError) or may_be_stored(error)


def _facts(headers: Mapping[str, str]) -> str:
    return f"({headers.get('content-length', '?')} bytes, of {headers.get('last-modified', 'an unknown time')})"
