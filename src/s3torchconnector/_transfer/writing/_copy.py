"""Copies an object inside S3: by one request, or in parts if it is too large for that.

    up to 5 GiB:    CopyObject, which keeps the content type, the metadata and the tags of the source
    more:           HeadObject and GetObjectTagging of the source, and a multipart upload that has what they told;
                    UploadPartCopy (any number at a time)

The code does not ask for the size first: a server that refuses a source because of its size says so. Every part demands
the ETag from the first look at the source (``x-amz-copy-source-if-match``), so that the copy is of one version.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html
https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPartCopy.html

A copy that must find nothing at its key has the mark of ``_write_condition`` in its metadata, and CopyObject either
takes all metadata of the source or all of the request. So the source is looked at first then, too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, NamedTuple

from s3torchconnector._config import GIB, MIB
from s3torchconnector._customer_key import S3CustomerKey
from s3torchconnector._errors import S3AccessDeniedError, S3ObjectChangedError, S3ObjectExistsError, S3ServiceError
from s3torchconnector._transfer.engine._runtime import OpenRuntime
from s3torchconnector._transfer.writing._completion import Completion
from s3torchconnector._transfer.writing._copied_checksums import CopiedChecksums
from s3torchconnector._transfer.writing._multipart import copied_ranges
from s3torchconnector._transfer.writing._upload import State, Upload
from s3torchconnector._transfer.writing._upload_requests import UploadRequests
from s3torchconnector._transfer.writing._write_condition import CreateOnly, Overwrite
from s3torchconnector._uri import display_uri
from s3torchconnector._wire import (
    CancelToken,
    CompletedPart,
    Request,
    Response,
    is_too_large_to_copy,
    operations,
    parse_copied_part,
    parse_tags,
    read_document,
    refuse_late_error,
)
from s3torchconnector._write_options import S3WriteOptions

_LARGEST = 5 * GIB  # bytes that one request copies
_PART_SIZE = 128 * MIB  # a second of a server's time
# The properties, besides metadata, that CopyObject takes from the source by default.
_KEPT = ("cache-control", "content-disposition", "content-encoding", "content-language", "content-type", "expires")
_NO_TAGS = (400, 404, 405, 501)  # what servers without tags say
_log = logging.getLogger(__name__)


class Place(NamedTuple):
    """An object's bucket and key, and which version of a source, if not the latest."""

    bucket: str
    key: str
    version_id: str | None = None

    @property
    def names(self) -> tuple[str, str]:
        return self.bucket, self.key

    def __str__(self) -> str:
        return display_uri(self.bucket, self.key)


class ObjectCopy:
    """One copy.

    Args:
        options: of the copy; what they leave out is the configuration's.
        overwrite: whether an object that exists at ``target`` is replaced.
        source_key: the customer's key of the source; ``"same"`` if it is the client's.
        part_size: bytes of each part, if the copy is made in parts.
    """

    def __init__(
        self,
        open_runtime: OpenRuntime,
        source: Place,
        target: Place,
        *,
        options: S3WriteOptions | None = None,
        overwrite: bool = True,
        source_key: S3CustomerKey | Literal["same"] | None = "same",
        part_size: int = _PART_SIZE,
    ) -> None:
        runtime = open_runtime()
        self._open_runtime = open_runtime
        self._caller = runtime.caller
        self._source = source
        self._target = target
        self._options = runtime.config._options_of_write(options)
        self._replaced = options or S3WriteOptions()  # what is not the source's
        self._condition = Overwrite() if overwrite else CreateOnly()
        self._source_key = source_key
        self._part_size = max(part_size, runtime.config.part_size)

    def carry_out(self) -> None:
        """Copy; return when the object is stored.

        Raises:
            S3NotFoundError: there is no such source, or no such bucket.
            S3ObjectExistsError: there is an object at the target, which was not to be overwritten.
            S3ObjectChangedError: the source was overwritten in the meantime.
            S3ChecksumError: the parts have another checksum than the source.
            S3Exception: an error occurred accessing S3.
        """
        self._condition.look(self._caller, *self._target.names)
        renews = self._replaced.metadata is not None or self._replaced.content_type is not None
        source = self._look() if renews or self._condition.marks else None
        if source is not None and _size_of(source) > _LARGEST:
            self._copy_parts(source)
            return
        try:
            self._copy_at_once(source)
        except S3ServiceError as error:
            if not is_too_large_to_copy(error):
                raise
            _log.info("%s is copied in parts: %s", self._source, error)
            self._copy_parts(source or self._look())

    def _look(self) -> Mapping[str, str]:
        """The headers of the source, with its checksum."""
        request = operations.head_object(*self._source.names, checksum=not self._caller.checksums.off)
        return self._caller.call(self._of_source(request), lambda response: response.headers)

    def _of_source(self, request: Request) -> Request:
        """``request``, with the key and the version of the source."""
        return operations.of_version(request._replace(source_key=self._source_key), self._source.version_id)

    # -- by one request ---------------------------------------------------------------------------------------------

    def _copy_at_once(self, source: Mapping[str, str] | None) -> None:
        headers = self._options._copy_headers()
        if source is not None:
            version = operations.source_if_match(source.get("etag"))
            headers |= {**self._metadata(source), "x-amz-metadata-directive": "REPLACE", **version}
        request = operations.copy_object(*self._source.names, *self._target.names, options=headers)
        request = self._condition.marked(self._of_source(request))
        if source is None:
            self._caller.call(request, partial(refuse_late_error, request))
            return
        send = partial(self._condition.send, self._caller, request, refuse_late_error)
        try:
            Completion(request, _size_of(source), lambda: None).carry_out(self._caller, self._condition, send)
        except S3ServiceError as error:
            if _may_be_of_source(error) and self._look().get("etag") != source.get("etag"):
                raise self._changed(error) from error
            raise

    def _metadata(self, source: Mapping[str, str]) -> dict[str, str]:
        """The content type and the metadata of the copy: the source's, but for what the options of this copy say."""
        kept = {name: value for name, value in source.items() if name in _KEPT}
        if self._replaced.metadata is None:
            kept.update({name: value for name, value in source.items() if name.startswith("x-amz-meta-")})
        chosen = S3WriteOptions(metadata=self._replaced.metadata, content_type=self._replaced.content_type)
        return {**kept, **chosen._headers()}

    # -- in parts -----------------------------------------------------------------------------------------------------

    def _copy_parts(self, source: Mapping[str, str]) -> None:
        options = self._options._copy_headers()
        options.pop("x-amz-tagging-directive", None)
        if self._options.tags is None:
            options.update(S3WriteOptions(tags=self._tags())._headers())
        checksums = CopiedChecksums(self._caller, self._target.bucket, str(self._source), source)
        headers = {**self._metadata(source), **options}
        requests = UploadRequests(self._caller, *self._target.names, headers, self._condition, checksums=checksums)
        upload = Upload(self._open_runtime, requests)
        try:
            upload.use(partial(self._add_parts, upload, source, checksums))
            upload.use(upload.store, then=State.COMPLETED)
        finally:
            upload.abort()  # if it is not completed, and an interrupt came between the two

    def _add_parts(self, upload: Upload, source: Mapping[str, str], checksums: CopiedChecksums) -> None:
        for span in copied_ranges(_size_of(source), self._part_size):
            upload.add_part(partial(self._copy_part, source.get("etag"), span, checksums))
        upload.size = _size_of(source)

    def _copy_part(
        self,
        etag: str | None,
        span: tuple[int, int],
        checksums: CopiedChecksums,
        upload_id: Callable[[], str],
        number: int,
        cancel: CancelToken,
    ) -> CompletedPart:
        request = operations.upload_part_copy(*self._source.names, etag, span, *self._target.names, upload_id(), number)
        request = self._of_source(request)
        try:
            document = self._caller.call(request, partial(refuse_late_error, request), cancel)
        except S3ServiceError as error:
            if error.status == 412 or error.code == "PreconditionFailed":
                raise self._changed(error) from error
            raise
        etag_of_part, checksum = parse_copied_part(document, checksums.algorithm)
        checksums.note_part(number, checksum, span[1] + 1 - span[0])
        return CompletedPart(number, etag_of_part, checksums.told_of_part(number))

    def _tags(self) -> dict[str, str]:
        """The tags of the source, which a multipart upload does not take by itself."""
        try:
            request = operations.get_object_tagging(*self._source.names)
            return self._caller.call(operations.of_version(request, self._source.version_id), _tags_in)
        except S3AccessDeniedError as error:
            _log.warning("%s has no tags, because those of %s cannot be read: %s", self._target, self._source, error)
        except S3ServiceError as error:
            if error.status not in _NO_TAGS or error.code == "NoSuchKey":
                raise
        return {}

    def _changed(self, error: S3ServiceError) -> S3ObjectChangedError:
        facts = {name: getattr(error, name) for name in ("operation", "status", "code", "request_id", "attempts")}
        text = f"{self._source} was overwritten while it was being copied to {self._target}. Nothing is stored there"
        return S3ObjectChangedError(text, bucket=self._source.bucket, key=self._source.key, **facts)


def _tags_in(response: Response) -> dict[str, str]:
    return parse_tags(read_document(response))


def _size_of(headers: Mapping[str, str]) -> int:
    return int(headers.get("content-length", "0"))


def _may_be_of_source(error: S3ServiceError) -> bool:
    """Whether a condition was refused, possibly the condition on the source."""
    return error.status == 412 or isinstance(error, S3ObjectExistsError)
