"""A page of ListObjectsV2: the one document that is worth reading fast, since there is one for each thousand keys.

The entries of nearly all servers have their fields in one order, and are taken with one regular expression. Whether it
saw every entry is checked; where it did not, a real parser reads the page.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote_plus

from s3torchconnector._errors import S3ProtocolError
from s3torchconnector._types import ObjectInfo, RestoreStatus
from s3torchconnector._wire._documents import find_text, local_name, parse, parse_timestamp

if TYPE_CHECKING:
    from xml.etree import ElementTree

_ENTRY = re.compile(
    r"<Contents>\s*<Key>([^<&]*)</Key>\s*<LastModified>([^<&]*)</LastModified>\s*<ETag>(&quot;[^<&]*&quot;|[^<&]*)</ETag>\s*"
    r"(?:<Checksum(?:Algorithm|Type)>[^<]*</Checksum(?:Algorithm|Type)>\s*)*"
    r"<Size>(\d{1,19})</Size>\s*(?:<StorageClass>([^<&]*)</StorageClass>\s*)?</Contents>",
    re.ASCII,
)


class ListPage(NamedTuple):
    """One page of a listing; ``next_token`` is None on the last."""

    objects: list[ObjectInfo]
    common_prefixes: list[str]
    next_token: str | None


def parse_list_page(data: bytes, up_to: str | None = None) -> ListPage:
    """A page of ListObjectsV2; with ``up_to``, as if the listing ended with that key, where that saves work.

    Raises:
        S3ProtocolError: it is malformed, or lacks what a page must have.
    """
    page, entries = _split(data)
    root = parse(page)
    if local_name(root) != "ListBucketResult":
        raise S3ProtocolError(f"the answer to a listing is a <{local_name(root)}> document")
    namespace = root.tag[: -len("ListBucketResult")]
    encoded = root.findtext(f"{namespace}EncodingType") == "url"
    truncated = root.findtext(f"{namespace}IsTruncated", "").strip().lower() == "true"
    token = root.findtext(f"{namespace}NextContinuationToken")
    if truncated and not token:
        raise S3ProtocolError("a truncated listing has no NextContinuationToken: keys would be lost")
    if up_to is not None and entries and _decoded(entries[-1][0], encoded) > up_to:
        del entries[bisect_right(entries, up_to, key=lambda entry: _decoded(entry[0], encoded)) :]
        truncated = False
    try:
        objects = [
            ObjectInfo(
                _decoded(key, encoded) if "%" in key or "+" in key else key,
                f'"{etag[6:-6]}"' if etag.startswith("&quot;") else etag,
                int(size),
                _timestamp(modified),
                storage_class or None,
            )
            for key, modified, etag, size, storage_class in entries
        ]
        objects += [_from_element(each, len(namespace), encoded) for each in root.iterfind(f"{namespace}Contents")]
    except (KeyError, ValueError) as error:
        raise S3ProtocolError(f"a listing's entry lacks a field or has a malformed one: {error}") from error
    prefixes = [
        _decoded(element.findtext(f"{namespace}Prefix") or "", encoded)
        for element in root.iterfind(f"{namespace}CommonPrefixes")
    ]
    return ListPage(objects, prefixes, token if truncated else None)


def _split(data: bytes) -> tuple[bytes, list[tuple[str, ...]]]:
    """The page without its entries, and the entries; the page as it is and none, where they cannot be taken out."""
    first, last = data.find(b"<Contents>"), data.rfind(b"</Contents>") + len(b"</Contents>")
    if first < 0 or last <= first:
        return data, []
    try:
        block = data[first:last].decode()
    except UnicodeDecodeError:
        return data, []
    entries = _ENTRY.findall(block)
    # Each match is a whole entry, so as many matches as entries are all of them; and nothing else stands between.
    if len(entries) != block.count("<Contents") or "<CommonPrefixes" in block or "<!" in block:
        return data, []
    return data[:first] + data[last:], entries


def _from_element(contents: ElementTree.Element, skip: int, encoded: bool) -> ObjectInfo:
    fields = {child.tag[skip:]: child for child in contents}
    restore = fields.get("RestoreStatus")
    storage_class = fields.get("StorageClass")
    etag = fields.get("ETag")
    return ObjectInfo(
        _decoded(fields["Key"].text or "", encoded),
        (etag.text or "") if etag is not None else "",
        _size(fields["Size"].text or ""),
        parse_timestamp(fields["LastModified"].text or ""),
        storage_class.text if storage_class is not None else None,
        None if restore is None else _restore_status(restore),
    )


def _size(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ValueError(f"not a size: {text[:60]!r}")
    return int(text)


def _restore_status(element: ElementTree.Element) -> RestoreStatus:
    expiry = find_text(element, "RestoreExpiryDate")
    in_progress = find_text(element, "IsRestoreInProgress") == "true"
    return RestoreStatus(in_progress, parse_timestamp(expiry) if expiry else None)


def _decoded(text: str, encoded: bool) -> str:
    # S3 encodes a space as '+' and a plus sign as '%2B'.
    return unquote_plus(text) if encoded else text


_timestamp = lru_cache(maxsize=4096)(parse_timestamp)  # many objects are written in the same second
