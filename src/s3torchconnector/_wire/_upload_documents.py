"""The documents of multipart uploads, copies, tags and new buckets, to values and back. See ``_documents``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import unquote_plus

from s3torchconnector._errors import S3ProtocolError
from s3torchconnector._late_imports import no_fork
from s3torchconnector._listing_results import UploadInfo
from s3torchconnector._wire._documents import NAMESPACE, find_text, local_name, parse, parse_timestamp, required_text


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


def parse_upload_id(data: bytes) -> str:
    return required_text(parse(data), "UploadId")


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
        from xml.sax.saxutils import escape  # here: most programs that write need no XML

    items = "".join(
        f"<Part><PartNumber>{part.number}</PartNumber><ETag>{escape(part.etag)}</ETag>{_checksum_of(part)}</Part>"
        for part in parts
    )
    return f'<CompleteMultipartUpload xmlns="{NAMESPACE}">{items}</CompleteMultipartUpload>'.encode()


def create_bucket_document(region: str) -> bytes:
    with no_fork:
        from xml.sax.saxutils import escape  # here: most programs that write need no XML

    constraint = f"<LocationConstraint>{escape(region)}</LocationConstraint>"
    return f'<CreateBucketConfiguration xmlns="{NAMESPACE}">{constraint}</CreateBucketConfiguration>'.encode()


def _checksum_of(part: CompletedPart) -> str:
    if part.checksum is None:
        return ""
    name, value = part.checksum
    return f"<Checksum{name}>{value}</Checksum{name}>"
