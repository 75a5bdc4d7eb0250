"""A page of ListObjectsV2: the one document that is worth reading fast, since there is one for each thousand keys.

The entries of nearly all servers have their fields in one order, and are taken with one regular expression. Whether
that is all a parser would have seen is checked; where it is not, a parser reads the page.
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
from s3torchconnector._types import ObjectInfo, ObjectInfos, RestoreStatus
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
            f"(?:<StorageClass>([^<&]*)</StorageClass>{_BLANK})?</Contents>",
        ]
    ),
    re.ASCII,
)
_PLACE = b"<Contents/>"
_PRINTABLE = bytes(range(0x20, 0x7F))


class _Columns(NamedTuple):
    """The entries of a page, field by field, as they stand there."""

    keys: list[str]
    modified: list[str]
    etags: list[str]
    sizes: list[str]
    storage_classes: list[str | None]


class ListPage(NamedTuple):
    """One page of a listing.

    Attributes:
        objects, common_prefixes: what it has.
        next_token: what the next page is asked for with; None on the last.
        in_order: whether its keys ascend strictly, in the byte order of UTF-8 (that of Python's strings).
        following: the first key that was left out since it lies after ``up_to``.
    """

    objects: ObjectInfos
    common_prefixes: list[str]
    next_token: str | None
    in_order: bool = True
    following: str | None = None

    def until(self, key: str) -> ListPage:
        """Without what lies after that key, if its keys are in order."""
        keys = self.objects.keys
        if not (self.in_order and keys and keys[-1] > key):
            return self
        count = bisect_right(keys, key)
        return self._replace(objects=self.objects[:count], following=keys[count])


def parse_list_page(data: bytes, up_to: str | None = None) -> ListPage:
    """A page of ListObjectsV2; with ``up_to``, without what lies after that key, if its keys are in order.

    Raises:
        S3ProtocolError: it is malformed, or lacks what a page must have.
    """
    page, columns = _split(data)
    root = parse(page)
    if columns is not None and not _stood_in_place(root):
        root, columns = parse(data), None
    if local_name(root) != "ListBucketResult":
        raise S3ProtocolError(f"the answer to a listing is a <{local_name(root)}> document")
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
            if up_to is not None and in_order and columns.keys[-1] > up_to:  # before more is made of them
                count = bisect_right(columns.keys, up_to)
                following = columns.keys[count]
                columns = _Columns._make(column[:count] for column in columns)
            objects = _from_columns(columns)
        else:
            elements = root.iterfind(f"{namespace}Contents")
            objects = ObjectInfos.of(_from_element(each, len(namespace), encoded) for each in elements)
            in_order = _ascend(objects.keys)
    except (KeyError, ValueError) as error:
        raise S3ProtocolError(f"a listing's entry lacks a field or has a malformed one: {error}") from error
    prefixes = [
        _decoded(element.findtext(f"{namespace}Prefix") or "", encoded)
        for element in root.iterfind(f"{namespace}CommonPrefixes")
    ]
    parsed = ListPage(objects, prefixes, token if truncated else None, in_order, following)
    return parsed if up_to is None else parsed.until(up_to)


def _split(data: bytes) -> tuple[bytes, _Columns | None]:
    """The page with one empty entry in place of all, and their fields; the page as it is and None, where that fails."""
    first, last = data.find(b"<Contents>"), data.rfind(b"</Contents>") + len(b"</Contents>")
    prolog, declared, _ = data[:first].partition(b"?>")
    if first < 0 or last <= first or (declared and b"encoding" in prolog and b"utf-8" not in prolog.lower()):
        return data, None
    try:
        block = data[first:last].decode()
    except UnicodeDecodeError:
        return data, None
    if "&" in block:
        block = block.replace("&quot;", '"').replace("&#34;", '"')  # of ETags; the others are for a parser
    # What stands between the entries, and their fields, in turn.
    pieces = _ENTRY.split(block)
    between = "".join(pieces[::6])
    columns = _Columns(*(pieces[field::6] for field in range(1, 6)))
    if between.strip(" \n\r\t") or not _is_plain(data[first:last], block, columns):
        return data, None
    return data[:first] + _PLACE + data[last:], columns


def _is_plain(data: bytes, block: str, columns: _Columns) -> bool:
    """Whether nothing in it would be refused or replaced by a parser: control characters, references, CDATA's end."""
    if "&" in block or ("]" in block and "]]>" in block):
        return False
    if not data.translate(None, _PRINTABLE):
        return True
    return all("".join(filter(None, column)).isprintable() for column in columns)


def _stood_in_place(root: ElementTree.Element) -> bool:
    """Whether the entries that were taken out were what a parser would have found: in no comment, all there are."""
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
