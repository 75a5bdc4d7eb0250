"""The forms in which a multipart upload can be completed, for servers that differ in the checksums they take.

    1. the checksum of each part in the document, that of the whole in a header    AWS, MinIO
    2. the checksums of the parts alone        MinIO before 2025, which compares the header with another checksum
    3. none                                    servers that keep no checksums of parts, and refuse to be told them

A server that refuses one form is sent the next one, and the client remembers for the bucket which one it took. The
first form costs AWS nothing: it accepts the checksums of parts also where one of the whole is kept.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompletedPart.html
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from s3torchconnector._errors import S3Exception
from s3torchconnector._transfer.writing._upload_checksums import UploadChecksums
from s3torchconnector._transfer.writing._write_condition import may_be_stored
from s3torchconnector._wire import Caller, CancelToken, CompletedPart, Request, Response, operations

_T = TypeVar("_T")


class CompletionForms:
    """Completes one multipart upload with ``caller``, in the form that the server takes.

    Args:
        parts: all parts, with the checksums that they were sent with.
    """

    def __init__(self, caller: Caller, checksums: UploadChecksums, parts: Sequence[CompletedPart]) -> None:
        self._caller = caller
        self._support = caller.checksums
        self._whole = checksums.of_whole()
        self._parts = parts if checksums.are_carried else _without_checksums(parts)

    def request(self, bucket: str, key: str, upload_id: str) -> Request:
        """The completion in the first form, or in the one that the bucket is known to take."""
        return operations.complete_multipart_upload(bucket, key, upload_id, self._parts, checksum=self._whole)

    def call(self, request: Request, consume: Callable[[Response], _T], cancel: CancelToken | None = None) -> _T:
        """``Caller.call``; if the server refuses a completion for its checksums, again in the other forms.

        Raises:
            S3Exception: as there; if no form is accepted, the refusal of the first one.
        """
        try:
            return self._caller.call(request, consume, cancel)
        except S3Exception as error:
            if request.operation != "CompleteMultipartUpload" or not self._support.may_explain_completion(error):
                raise
            refusal = error
        if self._whole and (result := self._try_again(request, self._parts, consume, cancel)):
            self._support.note_refused_whole(request.bucket, refusal)
            return result[0]
        plain = _without_checksums(self._parts)
        if plain != self._parts and (result := self._try_again(request, plain, consume, cancel)):
            self._support.note_unsupported(request.bucket, refusal)
            return result[0]
        if self._support.note_refused(request.bucket, refusal):
            refusal.message += ". From now on, uploads to this bucket carry no checksums: write the object again"
            refusal._would_succeed_again = True  # see ``_start_over``
        raise refusal

    def _try_again(
        self,
        request: Request,
        parts: Sequence[CompletedPart],
        consume: Callable[[Response], _T],
        cancel: CancelToken | None,
    ) -> tuple[_T] | None:
        """The result without a checksum of the whole, in a tuple; None if the server refuses that, too."""
        headers = {name: value for name, value in request.headers.items() if not name.startswith("x-amz-checksum")}
        other = request._replace(headers=headers, body=operations.completion_body(parts))
        try:
            return (self._caller.call(other, consume, cancel),)
        except S3Exception as error:
            if may_be_stored(error) or not self._support.may_explain_completion(error):
                raise
            return None


def _without_checksums(parts: Sequence[CompletedPart]) -> list[CompletedPart]:
    return [part._replace(checksum=None) for part in parts]
