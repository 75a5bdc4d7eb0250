"""S3's operations as requests: pure functions from arguments to values, no I/O.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html
Keys and query values are not encoded here; they are encoded and signed once, when a request is sent.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import quote

from s3torchconnector._late_imports import no_fork
from s3torchconnector._uri import display_uri, is_arn
from s3torchconnector._wire._checksums import md5_of
from s3torchconnector._wire._connection import Buffer

if TYPE_CHECKING:
    from s3torchconnector._customer_key import S3CustomerKey
    from s3torchconnector._wire._upload_documents import CompletedPart, UploadMarker

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_WITHOUT_CONSTRAINT = "us-east-1"
_COPY_SOURCE = "x-amz-copy-source"
VERSION_ID = "versionId"  # of a query
CHECKSUM_MODE = "x-amz-checksum-mode"
# Those that requests have: what figures count by.
OPERATIONS = (
    "GetObject", "HeadObject", "PutObject", "ListObjectsV2", "DeleteObject", "CopyObject", "CreateMultipartUpload",
    "UploadPart", "UploadPartCopy", "CompleteMultipartUpload", "AbortMultipartUpload", "ListMultipartUploads",
    "GetObjectTagging", "CreateSession", "CreateBucket", "DeleteObjects",
)  # fmt: skip
UNASKED = ""  # as the value of that header: it is not sent, although the client asks for checksums


class Request(NamedTuple):
    """One S3 operation, ready to be addressed, signed and sent. ``body`` is a list of buffers, sent in order."""

    operation: str
    method: str
    bucket: str
    key: str = ""
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = _NO_HEADERS
    body: Sequence[Buffer] = ()
    also_good: tuple[int, ...] = ()  # error statuses that are good responses to this request
    source_key: "S3CustomerKey | Literal['same'] | None" = "same"  # of what is read or copied; "same": the client's

    @property
    def stores_object(self) -> bool:
        """Whether S3 may store an object when it has received the request, even if nobody waits for the response."""
        return self.operation == "PutObject"

    def __str__(self) -> str:
        return f"{self.operation} {display_uri(self.bucket, self.key)}"

    @property
    def description(self) -> str:
        """The operation, the object, and which bytes or which part of it."""
        details = [self.headers["range"]] if "range" in self.headers else []
        details += [f"part {value}" for name, value in self.query if name == "partNumber"]
        details += [f"version {value}" for name, value in self.query if name == VERSION_ID]
        return " ".join([str(self), *details])


def get_object(
    bucket: str, key: str, start: int | None = None, stop: int | None = None, *, if_match: str | None = None
) -> Request:
    """The object, or its bytes ``start`` up to but without ``stop``; a negative ``start`` means the last bytes.

    The response to a range beyond the end is 416, with the size of the object.
    """
    headers = _if_match(if_match) if if_match else {}
    if start is not None and start < 0:
        headers["range"] = f"bytes={start}"
    elif start is not None or stop is not None:
        headers["range"] = f"bytes={start or 0}-{'' if stop is None else stop - 1}"
    return Request("GetObject", "GET", bucket, key, headers=headers, also_good=(416,) if "range" in headers else ())


def of_version(request: Request, version_id: str | None) -> Request:
    """``request``, which reads, looks at or copies this version of the object instead of its latest."""
    if version_id is None:
        return request
    source = request.headers.get(_COPY_SOURCE)
    if source is None:
        return request._replace(query=(*request.query, (VERSION_ID, version_id)))
    source = f"{source}?{VERSION_ID}={quote(version_id, safe='')}"
    return request._replace(headers={**request.headers, _COPY_SOURCE: source})


def without_asking(request: Request) -> Request:
    """``request``, whose head does not ask for the object's checksum."""
    return request._replace(headers={**request.headers, CHECKSUM_MODE: UNASKED})


def head_object(bucket: str, key: str, *, checksum: bool = False, if_match: str | None = None) -> Request:
    """The metadata of an object, with ``checksum`` also its checksums (which needs the permission to decrypt it)."""
    headers = {**({CHECKSUM_MODE: "ENABLED"} if checksum else {}), **_if_match(if_match)}
    return Request("HeadObject", "HEAD", bucket, key, headers=headers)


def get_first_byte(head: Request) -> Request:
    """The request for the first byte of what ``head`` asks about; 416 if it has none."""
    headers = {**head.headers, "range": "bytes=0-0"}
    return head._replace(operation="GetObject", method="GET", headers=headers, also_good=(416,))


def put_object(
    bucket: str,
    key: str,
    body: Sequence[Buffer],
    *,
    options: Mapping[str, str] = _NO_HEADERS,
    checksum: Mapping[str, str] = _NO_HEADERS,
) -> Request:
    """``options`` are the headers of ``S3WriteOptions``."""
    return Request("PutObject", "PUT", bucket, key, headers={**options, **checksum}, body=body)


def delete_object(bucket: str, key: str) -> Request:
    if not key:  # the request would delete the bucket
        raise ValueError(f"the key of an object to delete in {display_uri(bucket)} is empty")
    return Request("DeleteObject", "DELETE", bucket, key)


def delete_objects(bucket: str, document: bytes) -> Request:
    """Delete the objects that the document names, of ``delete_document``.

    Its Content-MD5 is a checksum that servers demand, and that all of them know.
    """
    headers = {"content-type": "application/xml", "content-md5": md5_of([document])}
    return Request("DeleteObjects", "POST", bucket, query=(("delete", ""),), headers=headers, body=[document])


def copy_object(
    src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, *, options: Mapping[str, str] = _NO_HEADERS
) -> Request:
    headers = {_COPY_SOURCE: _copy_source(src_bucket, src_key), **options}
    return Request("CopyObject", "PUT", dst_bucket, dst_key, headers=headers)


def list_objects(
    bucket: str,
    prefix: str = "",
    delimiter: str = "",
    *,
    max_keys: int = 1000,
    token: str | None = None,
    start_after: str | None = None,
    restore_status: bool = False,
) -> Request:
    """One page of a listing. Keys come URL-encoded, because XML cannot represent every character of a key.

    With ``restore_status``, the page tells which archived objects are restored.
    """
    query = [("encoding-type", "url"), ("list-type", "2"), ("max-keys", str(max_keys)), ("prefix", prefix)]
    if delimiter:
        query.append(("delimiter", delimiter))
    if token:
        query.append(("continuation-token", token))
    if start_after:
        query.append(("start-after", start_after))
    headers = {"x-amz-optional-object-attributes": "RestoreStatus"} if restore_status else _NO_HEADERS
    return Request("ListObjectsV2", "GET", bucket, query=tuple(query), headers=headers)


def create_multipart_upload(
    bucket: str, key: str, *, options: Mapping[str, str] = _NO_HEADERS, checksum: Mapping[str, str] = _NO_HEADERS
) -> Request:
    headers = {**options, **checksum}
    return Request("CreateMultipartUpload", "POST", bucket, key, query=(("uploads", ""),), headers=headers)


def upload_part(
    bucket: str,
    key: str,
    upload_id: str,
    number: int,
    body: Sequence[Buffer],
    *,
    checksum: Mapping[str, str] = _NO_HEADERS,
) -> Request:
    query = (("partNumber", str(number)), ("uploadId", upload_id))
    return Request("UploadPart", "PUT", bucket, key, query=query, headers=checksum, body=body)


def upload_part_copy(
    src_bucket: str,
    src_key: str,
    etag: str | None,
    span: tuple[int, int],
    bucket: str,
    key: str,
    upload_id: str,
    number: int,
) -> Request:
    """Copy the bytes from the first to the last of ``span``, of the version of the source with this ETag."""
    query = (("partNumber", str(number)), ("uploadId", upload_id))
    headers = {
        _COPY_SOURCE: _copy_source(src_bucket, src_key),
        "x-amz-copy-source-range": f"bytes={span[0]}-{span[1]}",
        **source_if_match(etag),
    }
    return Request("UploadPartCopy", "PUT", bucket, key, query=query, headers=headers)


def source_if_match(etag: str | None) -> dict[str, str]:
    """The header of a copy that demands a version of its source."""
    return {f"x-amz-copy-source-{name}": value for name, value in _if_match(etag).items()}


def get_object_tagging(bucket: str, key: str) -> Request:
    return Request("GetObjectTagging", "GET", bucket, key, query=(("tagging", ""),))


def create_bucket(bucket: str, region: str) -> Request:
    """A bucket in ``region``; the document is left out for us-east-1, which it may not name."""
    with no_fork:
        from s3torchconnector._wire._upload_documents import create_bucket_document

    body = [] if region == _WITHOUT_CONSTRAINT else [create_bucket_document(region)]
    return Request("CreateBucket", "PUT", bucket, headers={"content-type": "application/xml"}, body=body)


def complete_multipart_upload(
    bucket: str,
    key: str,
    upload_id: str,
    parts: "Iterable[CompletedPart]",
    *,
    checksum: Mapping[str, str] = _NO_HEADERS,
) -> Request:
    body = completion_body(parts)
    headers = {"content-type": "application/xml", **checksum}
    return Request("CompleteMultipartUpload", "POST", bucket, key, (("uploadId", upload_id),), headers, body)


def completion_body(parts: "Iterable[CompletedPart]") -> tuple[bytes]:
    """The document that names the parts, as the body of a request."""
    with no_fork:
        from s3torchconnector._wire._upload_documents import complete_multipart_document  # here: reading needs none

    return (complete_multipart_document(parts),)


def abort_multipart_upload(bucket: str, key: str, upload_id: str) -> Request:
    return Request("AbortMultipartUpload", "DELETE", bucket, key, query=(("uploadId", upload_id),))


def list_multipart_uploads(
    bucket: str, prefix: str = "", marker: "UploadMarker | None" = None, *, encoded: bool = False
) -> Request:
    """One page of the multipart uploads that were started and not completed or aborted, after ``marker``.

    Keys come as they are: Ceph's gateway encodes them if asked to, and does not say so.
    """
    query = [("max-uploads", "1000"), ("prefix", prefix), ("uploads", "")]
    if encoded:
        query.append(("encoding-type", "url"))
    if marker:
        query.append(("key-marker", marker.key))
        if marker.upload_id:
            query.append(("upload-id-marker", marker.upload_id))
    return Request("ListMultipartUploads", "GET", bucket, query=tuple(query))


def create_session(bucket: str, mode: str | None = None, *, options: Mapping[str, str] = _NO_HEADERS) -> Request:
    """Short-lived credentials for a directory bucket; without a ``mode`` they can read and write.

    What is stored by them is encrypted as ``options`` say, and its own must say the same.
    """
    headers = {**({"x-amz-create-session-mode": mode} if mode else {}), **options}
    return Request("CreateSession", "GET", bucket, query=(("session", ""),), headers=headers)


def _copy_source(bucket: str, key: str) -> str:
    """The value of ``x-amz-copy-source``; of an access point, the object's ARN.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html#API_CopyObject_RequestSyntax
    """
    if is_arn(bucket):
        *head, resource = bucket.replace("/", ":").split(":", 5)
        return quote(":".join([*head, resource.replace(":", "/")]) + f"/object/{key}", safe="/:~")
    return quote(f"/{bucket}/{key}", safe="/~")


def _if_match(etag: str | None) -> dict[str, str]:
    """Nothing for a weak ETag, which never matches (RFC 9110, 13.1.1). The response must be compared instead."""
    return {} if not etag or etag.startswith("W/") else {"if-match": etag}
