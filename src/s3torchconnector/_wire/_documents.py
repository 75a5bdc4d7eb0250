"""S3's XML documents to values and back.

Elements are found by their local name, because servers differ in namespaces and in the names of root elements (rclone's
response to CreateMultipartUpload has another root than AWS's). A document type declaration is refused before parsing:
S3 never sends one, and entity bombs need one.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote_plus

from s3torchconnector._errors import S3ProtocolError
from s3torchconnector._late_imports import no_fork
from s3torchconnector._types import UploadInfo

if TYPE_CHECKING:
    from xml.etree import ElementTree

# Control characters that XML 1.0 does not allow, and characters of Unicode's private use that stand for them.
_STAND_INS = {code: 0xF700 + code for code in range(1, 32) if code not in b"\t\n\r"}
_CONTROL = re.compile(rb"[\x01-\x08\x0b\x0c\x0e-\x1f]|&#(?:x([0-9a-fA-F]{1,6})|([0-9]{1,7}));")
_EPOCH = datetime.date(1970, 1, 1)
NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
DOCUMENT_LIMIT = 32 * 1024 * 1024  # bytes; a page of 1,000 keys of the greatest length, URL-encoded, is under 4 MiB


class CompletedPart(NamedTuple):
    """A part that S3 has: its number (from 1), its ETag, and the checksum that it was sent with.

    The checksum is S3's name of the algorithm and the value in base64; None if it was sent without one.
    """

    number: int
    etag: str
    checksum: tuple[str, str] | None = None


class UploadMarker(NamedTuple):
    """Where a listing of multipart uploads continues: after this key and, except in directory buckets, this upload."""

    key: str
    upload_id: str | None


class UploadsPage(NamedTuple):
    """A page of multipart uploads; ``next_marker`` is None on the last."""

    uploads: list[UploadInfo]
    next_marker: UploadMarker | None


class ErrorDocument(NamedTuple):
    """S3's description of an error: code, message, request id; the bucket's region, the storage class and the tier of
    an archived object, if they are given."""

    code: str
    message: str
    request_id: str | None = None
    region: str | None = None
    storage_class: str | None = None
    access_tier: str | None = None


class SessionDocument(NamedTuple):
    """A directory bucket's session credentials; ``expires`` in seconds since 1970."""

    access_key: str
    secret_key: str
    token: str
    expires: float


def parse(data: bytes) -> ElementTree.Element:
    """Parse a document.

    Raises:
        S3ProtocolError: it is not well-formed, or declares a document type.
    """
    # A zero byte means UTF-16, in which this search would miss a declaration; XML in UTF-8 has none.
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data or b"\0" in data:
        raise S3ProtocolError("the XML of the response declares a document type, which S3 never does")
    with no_fork:
        from xml.etree import ElementTree  # here: reading an object needs no XML, and this takes milliseconds

    try:
        try:
            return ElementTree.fromstring(data)
        except ElementTree.ParseError:
            replaced = _with_stand_ins(data)
            if replaced is None:
                raise
            return _restored(ElementTree.fromstring(replaced))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise S3ProtocolError(f"the response is not well-formed XML ({error}): it begins with {data[:60]!r}") from error


def _with_stand_ins(data: bytes) -> bytes | None:
    """A document with stand-ins for control characters, which keys may have and XML may not; None if it has none.

    Some servers write such keys into documents as they are, or as references. One of them must not hide a bucket.
    """
    if any(chr(code).encode() in data for code in _STAND_INS.values()):
        return None
    replaced = _CONTROL.sub(_stand_in, data)
    return replaced if replaced != data else None


def _stand_in(found: re.Match[bytes]) -> bytes:
    hexadecimal, decimal = found.groups()
    code = int(hexadecimal, 16) if hexadecimal else int(decimal) if decimal else found[0][0]
    return chr(_STAND_INS[code]).encode() if code in _STAND_INS else found[0]


def _restored(root: ElementTree.Element) -> ElementTree.Element:
    """A document whose stand-ins are the characters again that they stand for."""
    characters = {stand_in: code for code, stand_in in _STAND_INS.items()}
    for element in root.iter():
        element.text = element.text and element.text.translate(characters)
    return root


def local_name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def find_text(root: ElementTree.Element, name: str) -> str | None:
    """The text of the first element with that local name, at any depth."""
    for element in root.iter():
        if local_name(element) == name:
            return (element.text or "").strip()
    return None


def required_text(root: ElementTree.Element, name: str) -> str:
    text = find_text(root, name)
    if not text:
        raise S3ProtocolError(f"the response has no {name} in its <{local_name(root)}> document")
    return text


def parse_error(data: bytes) -> ErrorDocument | None:
    """An error document; None for any other bytes, which then do not come from an S3 server."""
    try:
        root = parse(data)
    except S3ProtocolError:
        return None
    code = find_text(root, "Code")
    if local_name(root) not in ("Error", "ErrorResponse") or not code:
        return None
    message = find_text(root, "Message") or ""
    names = ("RequestId", "Region", "StorageClass", "AccessTier")
    return ErrorDocument(_printable(code), _printable(message), *(find_text(root, name) or None for name in names))


def _printable(text: str) -> str:
    """Text from the server with control characters escaped, so that it cannot forge lines of a log."""
    return text if text.isprintable() else repr(text)[1:-1]


def parse_upload_id(data: bytes) -> str:
    return required_text(parse(data), "UploadId")


def parse_session(data: bytes) -> SessionDocument:
    root = parse(data)
    names = ("AccessKeyId", "SecretAccessKey", "SessionToken")
    access_key, secret_key, token = (required_text(root, name) for name in names)
    try:
        expires = parse_timestamp(required_text(root, "Expiration"))
    except ValueError as error:
        raise S3ProtocolError(f"the session's Expiration is malformed: {error}") from error
    return SessionDocument(access_key, secret_key, token, expires)


def parse_uploads_page(data: bytes) -> UploadsPage:
    """A page of ListMultipartUploads.

    Raises:
        S3ProtocolError: it is malformed, or lacks what a page must have.
    """
    root = parse(data)
    if local_name(root) != "ListMultipartUploadsResult":
        raise S3ProtocolError(f"the response to ListMultipartUploads is a <{local_name(root)}> document")
    decoded = unquote_plus if find_text(root, "EncodingType") == "url" else str
    try:
        uploads = [
            UploadInfo(
                decoded(required_text(each, "Key")),
                required_text(each, "UploadId"),
                parse_timestamp(required_text(each, "Initiated")),
            )
            for each in root
            if local_name(each) == "Upload"
        ]
    except ValueError as error:
        raise S3ProtocolError(f"a listing of uploads has a malformed field: {error}") from error
    if (find_text(root, "IsTruncated") or "").lower() != "true":
        return UploadsPage(uploads, None)
    # Directory buckets have no NextUploadIdMarker.
    marker = UploadMarker(decoded(required_text(root, "NextKeyMarker")), find_text(root, "NextUploadIdMarker") or None)
    return UploadsPage(uploads, marker)


def parse_copied_part(data: bytes, checksum: str | None) -> tuple[str, str | None]:
    """The ETag of a part that was copied, and its checksum by this algorithm, if the server tells it.

    Raises:
        S3ProtocolError: the document has no ETag.
    """
    root = parse(data)
    found = find_text(root, f"Checksum{checksum}") if checksum else None
    return required_text(root, "ETag"), found or None


def parse_tags(data: bytes) -> dict[str, str]:
    """The tags of an object."""
    tags = [
        {local_name(field): field.text or "" for field in each}
        for each in parse(data).iter()
        if local_name(each) == "Tag"
    ]
    return {tag["Key"]: tag.get("Value", "") for tag in tags if "Key" in tag}


def complete_multipart_document(parts: Iterable[CompletedPart]) -> bytes:
    with no_fork:
        from xml.sax.saxutils import escape  # here, for the same reason

    items = "".join(
        f"<Part><PartNumber>{part.number}</PartNumber><ETag>{escape(part.etag)}</ETag>{_checksum_of(part)}</Part>"
        for part in parts
    )
    return f'<CompleteMultipartUpload xmlns="{NAMESPACE}">{items}</CompleteMultipartUpload>'.encode()


def create_bucket_document(region: str) -> bytes:
    with no_fork:
        from xml.sax.saxutils import escape  # here, for the same reason

    constraint = f"<LocationConstraint>{escape(region)}</LocationConstraint>"
    return f'<CreateBucketConfiguration xmlns="{NAMESPACE}">{constraint}</CreateBucketConfiguration>'.encode()


def _checksum_of(part: CompletedPart) -> str:
    if part.checksum is None:
        return ""
    name, value = part.checksum
    return f"<Checksum{name}>{value}</Checksum{name}>"


def parse_timestamp(text: str) -> int:
    """ISO 8601 as S3 writes it (``2026-01-31T10:20:30.000Z``, always UTC) in seconds since 1970.

    Raises:
        ValueError: the text has another format.
    """
    if len(text) < 19 or text[4] + text[7] + text[10] + text[13] + text[16] != "--T::":
        raise ValueError(f"not a timestamp: {text!r}")
    return _midnight(text[:10]) + int(text[11:13]) * 3600 + int(text[14:16]) * 60 + int(text[17:19])


@lru_cache(maxsize=4096)
def _midnight(date: str) -> int:
    return (datetime.date.fromisoformat(date) - _EPOCH).days * 86400


def parse_http_date(text: str) -> int:
    """A date header (RFC 9110, section 5.6.7) in seconds since 1970; 0 if it is malformed."""
    with no_fork:
        from email.utils import parsedate_to_datetime

    try:
        return int(parsedate_to_datetime(text).timestamp())
    except (TypeError, ValueError, OverflowError):
        return 0
