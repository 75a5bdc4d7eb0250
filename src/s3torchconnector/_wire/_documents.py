"""S3's XML documents to values, and what several of them have in common.

Elements are found by their local name, because servers differ in namespaces and in the names of root elements (rclone's
response to CreateMultipartUpload has another root than AWS's). A document type declaration is refused before parsing:
S3 never sends one, and entity bombs need one.
"""

import datetime
import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from s3torchconnector._errors import S3ProtocolError
from s3torchconnector._late_imports import no_fork

if TYPE_CHECKING:
    from xml.etree import ElementTree

# Control characters that XML 1.0 does not allow, and characters of Unicode's private use that stand for them.
_STAND_INS = {code: 0xF700 + code for code in range(1, 32) if code not in b"\t\n\r"}
_CONTROL = rb"[\x01-\x08\x0b\x0c\x0e-\x1f]|&#(?:x([0-9a-fA-F]{1,6})|([0-9]{1,7}));"  # compiled when it is needed
_EPOCH = datetime.date(1970, 1, 1)
NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
DOCUMENT_LIMIT = 32 * 1024 * 1024  # bytes; a page of 1,000 keys of the greatest length, URL-encoded, is under 4 MiB


class ErrorDocument(NamedTuple):
    """S3's description of an error: code, message, request id; the bucket's region, the storage class and the tier of
    an archived object, if they are given."""

    code: str
    message: str
    request_id: str | None = None
    region: str | None = None
    storage_class: str | None = None
    access_tier: str | None = None


def parse(data: bytes) -> "ElementTree.Element":
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
    replaced = re.sub(_CONTROL, _stand_in, data)
    return replaced if replaced != data else None


def _stand_in(found: re.Match[bytes]) -> bytes:
    hexadecimal, decimal = found.groups()
    code = int(hexadecimal, 16) if hexadecimal else int(decimal) if decimal else found[0][0]
    return chr(_STAND_INS[code]).encode() if code in _STAND_INS else found[0]


def _restored(root: "ElementTree.Element") -> "ElementTree.Element":
    """A document whose stand-ins are the characters again that they stand for."""
    characters = {stand_in: code for code, stand_in in _STAND_INS.items()}
    for element in root.iter():
        element.text = element.text and element.text.translate(characters)
    return root


def local_name(element: "ElementTree.Element") -> str:
    return element.tag.rpartition("}")[2]


def find_text(root: "ElementTree.Element", name: str) -> str | None:
    """The text of the first element with that local name, at any depth."""
    for element in root.iter():
        if local_name(element) == name:
            return (element.text or "").strip()
    return None


def required_text(root: "ElementTree.Element", name: str) -> str:
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
