"""A page of ListObjectsV2: the one document worth parsing fast, because there is one for each thousand keys.

Nearly all servers write the fields of an entry in the same order, so that one regular expression can extract them. If
an XML parser might find anything else, it reads the page instead.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import lru_cache
from itertools import islice
from operator import lt
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote_plus

from s3torchconnector._errors import S3ProtocolError
from s3torchconnector._listing_results import ObjectInfos
from s3torchconnector._types import ObjectInfo, RestoreStatus
from s3torchconnector._wire._documents import find_text, local_name, parse, parse_timestamp

if TYPE_CHECKING:
    from xml.etree import ElementTree

_BLANK = r"[ \n\r\t]*"
_ENTRY = re.compile(
    _BLANK.join(
        [
            "<Contents>",
            "<Key>([^<&]*)</Key>",
            "<LastModified>([^<&]*)</LastModified>",
            "<ETag>([^<]*)</ETag>",
            rf"(?:<Checksum(?:Algorithm|Type)>\w*</Checksum(?:Algorithm|Type)>{_BLANK})*<Size>(\d{{1,19}})</Size>",
            # Ceph's gateway says of each object how it was written.
            rf"(?:<StorageClass>([^<&]*)</StorageClass>{_BLANK})?(?:<Type>\w*</Type>{_BLANK})?</Contents>",
        ]
    ),
    re.ASCII,
)
_PLACE = b"<Contents/>"
_PRINTABLE = bytes(range(0x20, 0x7F))


class _Columns(NamedTuple):
    """The entries of a page, field by field, as text."""

    keys: list[str]
    modified: list[str]
    etags: list[str]
    sizes: list[str]
    storage_classes: list[str | None]


class ListPage(NamedTuple):
    """One page of a listing.

    Attributes:
        objects, common_prefixes: the content of the page.
        next_token: the continuation token for the next page; None on the last.
        in_order: whether its keys ascend strictly, in the byte order of UTF-8 (the order of Python's strings).
        following: the first key that was left out because it comes after ``up_to``.
    """

    objects: ObjectInfos
    common_prefixes: list[str]
    next_token: str | None
    in_order: bool = True
    following: str | None = None

    def beginning_with(self, prefix: str) -> ListPage:
        """The page without keys and common prefixes that do not begin with ``prefix``."""
        prefixes = [each for each in self.common_prefixes if each.startswith(prefix)]
        objects = self.objects
        if not all(key.startswith(prefix) for key in objects.keys):
            objects = ObjectInfos.of(info for info in objects if info.key.startswith(prefix))
        return self._replace(objects=objects, common_prefixes=prefixes)

    def until(self, key: str) -> ListPage:
        """The page without entries after that key, if its keys are in order."""
        keys = self.objects.keys
        if not (self.in_order and keys and keys[-1] > key):
            return self
        count = bisect_right(keys, key)
        return self._replace(objects=self.objects[:count], following=keys[count])


def parse_list_page(data: bytes, up_to: str | None = None) -> ListPage:
    """A page of ListObjectsV2; with ``up_to``, without entries after that key, if its keys are in order.

    Raises:
        S3ProtocolError: it is malformed, or lacks what a page must have.
    """
    page, columns = _split(data)
    root = parse(page)
    if columns is not None and not _are_replaced(root):
        root, columns = parse(data), None
    if local_name(root) != "ListBucketResult":
        raise S3ProtocolError(f"the response to ListObjectsV2 is a <{local_name(root)}> document")
    namespace = root.tag[: -len("ListBucketResult")]
    encoded = root.findtext(f"{namespace}EncodingType") == "url"
    truncated = root.findtext(f"{namespace}IsTruncated", "").strip().lower() == "true"
    token = root.findtext(f"{namespace}NextContinuationToken")
    if truncated and not token:
        raise S3ProtocolError("a truncated listing has no NextContinuationToken: keys would be lost")
    in_order, following = True, None
    try:
        if columns is not None:
            if encoded:
                columns = columns._replace(keys=list(map(_unquoted, columns.keys)))
            in_order = _ascend(columns.keys)
            if up_to is not None and in_order and columns.keys[-1] > up_to:  # before values are made of them
                count = bisect_right(columns.keys, up_to)
                following = columns.keys[count]
                columns = _Columns._make(column[:count] for column in columns)
            objects = _from_columns(columns)
        else:
            elements = root.iterfind(f"{namespace}Contents")
            objects = ObjectInfos.of(_from_element(each, len(namespace), encoded) for each in elements)
            in_order = _ascend(objects.keys)
    except (KeyError, ValueError) as error:
        raise S3ProtocolError(f"an entry of a listing lacks a field or has a malformed one: {error}") from error
    common = root.iterfind(f"{namespace}CommonPrefixes")
    prefixes = [_decoded(each.findtext(f"{namespace}Prefix") or "", encoded) for each in common]
    parsed = ListPage(objects, prefixes, token if truncated else None, in_order, following)
    return parsed if up_to is None else parsed.until(up_to)


def _split(data: bytes) -> tuple[bytes, _Columns | None]:
    """The page with one empty entry in place of all, and their fields; the unchanged page and None if that fails."""
    first, last = data.find(b"<Contents>"), data.rfind(b"</Contents>") + len(b"</Contents>")
    prolog, declared, _ = data[:first].partition(b"?>")
    if first < 0 or last <= first or (declared and b"encoding" in prolog and b"utf-8" not in prolog.lower()):
        return data, None
    try:
        block = data[first:last].decode()
    except UnicodeDecodeError:
        return data, None
    if "&" in block:
        # Used in ETags, and for apostrophes of keys; other references need a parser.
        block = block.replace("&quot;", '"').replace("&#34;", '"').replace("&apos;", "'").replace("&#39;", "'")
    # The text between two entries, and the fields of one, in turn.
    pieces = _ENTRY.split(block)
    between = "".join(pieces[::6])
    columns = _Columns(*(pieces[field::6] for field in range(1, 6)))
    if between.strip(" \n\r\t") or not _is_plain(data[first:last], block, columns):
        return data, None
    return data[:first] + _PLACE + data[last:], columns


def _is_plain(data: bytes, block: str, columns: _Columns) -> bool:
    """Whether it has nothing that a parser would refuse or replace: control characters, references, ends of CDATA."""
    if "&" in block or ("]" in block and "]]>" in block):
        return False
    if not data.translate(None, _PRINTABLE):
        return True
    return all("".join(filter(None, column)).isprintable() for column in columns)


def _are_replaced(root: ElementTree.Element) -> bool:
    """Whether a parser would have found exactly the replaced entries: none in a comment, and no others."""
    found = root.findall(f"{root.tag[: -len(local_name(root))]}Contents")
    return len(found) == 1 and not len(found[0]) and not found[0].attrib and not found[0].text


def _ascend(keys: list[str]) -> bool:
    return all(map(lt, keys, islice(keys, 1, None)))


def _unquoted(key: str) -> str:
    return unquote_plus(key) if "%" in key or "+" in key else key


def _from_columns(columns: _Columns) -> ObjectInfos:
    keys, modified, etags, sizes, storage_classes = columns
    classes = [storage_class or None for storage_class in storage_classes]
    times = list(map(_timestamp, modified))
    return ObjectInfos(keys, etags, list(map(int, sizes)), times, classes, [None] * len(keys))


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
