"""Samples that are made from some bytes of an object: tables from row groups, and dicts from MDS shards.

The form of a sample describes its bytes. It is a JSON document in the manifest that many samples share:

- ``{"format": "parquet", "columns": [...] or null, "tail": ...}``: a row group, whose number is the sample's name. The
  last ``tail`` bytes of the file have its footer. If the row group's bytes go on to the end of the file, they have it;
  otherwise it is fetched once by a process, and kept while there is room.
- ``{"format": "mds", "columns": [[name, encoding, size], ...]}``: a sample of an MDS shard.
"""

from __future__ import annotations

import json
import struct
import threading
from abc import abstractmethod
from functools import lru_cache
from typing import Any

from s3torchconnector._errors import S3FormatError
from s3torchconnector._platform import at_fork
from s3torchconnector._samples import _parquet
from s3torchconnector._samples._fetched import FetchedSample, OpenPart, RangeSample
from s3torchconnector._samples._items import RangeItem, RecordItem
from s3torchconnector._samples._mds import Column, SampleDecoder
from s3torchconnector._uri import display_uri
from s3torchconnector.s3reader import S3Reader

_FORMS = 256  # that are kept parsed
_FOOTERS = 32 * 2**20  # bytes of footers that a process keeps parsed, which takes several times as much
_WRONG = (S3FormatError, ValueError, struct.error, KeyError, IndexError, ArithmeticError)  # of bytes that are not right
_Version = tuple[str, str, str]


def parquet_form(columns: list[str] | None, tail: int) -> str:
    """The form of a row group."""
    return json.dumps({"format": "parquet", "columns": columns, "tail": tail})


def mds_form(columns: list[Column]) -> str:
    """The form of a sample of an MDS shard."""
    return json.dumps({"format": "mds", "columns": columns})


def record_sample(item: RecordItem, open_part: OpenPart) -> FetchedSample:
    """What makes a sample of its bytes.

    Raises:
        S3FormatError: the manifest is of a later release, or of others.
    """
    form = _parsed(item.form)
    if isinstance(form, SampleDecoder):
        return MdsSample(item, open_part, form)
    return RowGroupSample(item, open_part, form)


class _RowGroupForm:
    def __init__(self, columns: list[str] | None, tail: int) -> None:
        self.columns = columns
        self.tail = tail


@lru_cache(_FORMS)
def _parsed(form: str) -> SampleDecoder | _RowGroupForm:
    try:
        document = json.loads(form)
        kind, columns = document["format"], document["columns"]
        if kind == "mds":
            return SampleDecoder(Column(*column) for column in columns)
        if kind == "parquet":
            return _RowGroupForm(columns, int(document["tail"]))
    except (ValueError, TypeError, KeyError) as error:
        raise S3FormatError(
            f"the manifest has samples of a form that makes no sense: {error!r}: {form:.200}"
        ) from error
    raise S3FormatError(
        f"the manifest has samples in the format {kind!r}: a later release of this package has written it; use that"
    )


class RecordSample(RangeSample):
    """A sample that is made from one range. If that fails, it is fetched again, once: bytes may have changed on the
    way.

    Args:
        item: which bytes.
        open_part: opens them.
        what: what the sample is called in errors.
    """

    def __init__(self, item: RecordItem, open_part: OpenPart, what: str) -> None:
        super().__init__(item, open_part)
        self._item = item
        self._open = open_part
        self._what = what

    @property
    def file(self) -> Any:
        data = self._reader.read()
        self._prepare(data, again=False)
        try:
            return self._made(data)
        except _WRONG:
            data, before = self._open(self._item, again=True).read(), data
        self._prepare(data, again=True)
        try:
            return self._made(data)
        except _WRONG as error:
            raise self._error(error, same=data == before) from error

    def _prepare(self, data: bytes, *, again: bool) -> None:
        """Fetch what else is needed; anew, if the sample could not be made."""

    @abstractmethod
    def _made(self, data: bytes) -> Any:
        """The sample. Raises one of ``_WRONG`` if the bytes are wrong."""

    def _error(self, error: Exception, *, same: bool) -> S3FormatError:
        item = self._item
        why = (
            "came twice the same: they were damaged when they were written or stored. Write the file again"
            if same
            else "came twice, and differed: they are changed on the way. Read them over another network if you can"
        )
        return S3FormatError(
            f"{display_uri(item.bucket, item.key)}, {self._what} {item.name}: {error}. The bytes {item.start} to "
            f"{item.stop} {why}",
            bucket=item.bucket,
            key=item.key,
        )


class MdsSample(RecordSample):
    """A sample of an MDS shard."""

    def __init__(self, item: RecordItem, open_part: OpenPart, decode: SampleDecoder) -> None:
        super().__init__(item, open_part, "sample")
        self._decode = decode

    def _made(self, data: bytes) -> dict[str, Any]:
        return self._decode(data)


class RowGroupSample(RecordSample):
    """A row group, and the footer of its file if this process does not have it.

    The first sample of a file that is fetched ahead also fetches the footer, at the same time as its row group. If
    another sample is made before the footer has arrived, it fetches the footer again.
    """

    def __init__(self, item: RecordItem, open_part: OpenPart, form: _RowGroupForm) -> None:
        super().__init__(item, open_part, "row group")
        self._form = form
        info = item.object_info
        assert info is not None
        self._size = info.size
        self._version = (item.bucket, item.key, info.etag)
        self._tail: S3Reader | None = None
        self._metadata: Any = None
        self._footer = b""

    def _start_early(self, likely_size: int | None) -> bool:
        if self._item.stop < self._size and self._tail is None and _footers.claim(self._version):
            self._open_tail()._start_early()
        return super()._start_early(likely_size)

    def _hand_out(self) -> int | None:
        if self._tail is not None:
            self._tail._hand_out()
        return super()._hand_out()

    def close(self) -> None:
        if self._tail is not None:
            self._tail.close()
            _footers.release(self._version)
        super().close()

    def _prepare(self, data: bytes, *, again: bool) -> None:
        self._metadata = None if again else _footers.get(self._version)
        if self._metadata is not None:
            return
        if self._item.stop == self._size:
            self._footer = data
        else:
            tail = self._tail if self._tail is not None and not again else self._open_tail(again=again)
            self._footer = tail.read()

    def _made(self, data: bytes) -> Any:
        if self._metadata is None:
            self._metadata = self._parsed_footer()
        return _parquet.table_of(self._metadata, int(self._item.name), self._form.columns, data, self._item.start)

    def _open_tail(self, *, again: bool = False) -> S3Reader:
        item, start = self._item, max(0, self._size - self._form.tail)
        assert item.object_info is not None
        self._tail = self._open(RangeItem(item.bucket, item.key, item.object_info, start, self._size), again=again)
        return self._tail

    def _parsed_footer(self) -> Any:
        tail, self._footer = self._footer, b""
        length = _parquet.footer_size(tail, self._size)
        if length > len(tail):
            raise S3FormatError(f"its footer has {length} bytes, but the manifest says {self._form.tail} at most")
        metadata = _parquet.metadata_of(tail[-length:])
        _footers.keep(self._version, metadata, length)
        return metadata


class _Footers:
    """Parsed footers, by the versions of their files: those that were stored last, within a limit."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[_Version, tuple[Any, int]] = {}
        self._size = 0
        self._claimed: set[_Version] = set()

    def get(self, version: _Version) -> Any:
        """What was kept, or None."""
        with self._lock:
            found = self._kept.pop(version, None)
            if found is None:
                return None
            self._kept[version] = found  # it was used last
            return found[0]

    def keep(self, version: _Version, metadata: Any, size: int) -> None:
        """Keep a footer, instead of those that were used least recently."""
        with self._lock:
            self._claimed.discard(version)
            self._size += size - self._kept.pop(version, (None, 0))[1]
            self._kept[version] = metadata, size
            while self._size > _FOOTERS and len(self._kept) > 1:
                self._size -= self._kept.pop(next(iter(self._kept)))[1]

    def claim(self, version: _Version) -> bool:
        """Whether the caller should fetch this footer: it is neither kept nor being fetched."""
        with self._lock:
            if version in self._kept or version in self._claimed:
                return False
            self._claimed.add(version)
            return True

    def release(self, version: _Version) -> None:
        """The caller does not fetch it any more."""
        with self._lock:
            self._claimed.discard(version)


_footers = _Footers()


def _begin_anew() -> None:
    """In a child, whose parent may have held the lock."""
    global _footers
    _footers = _Footers()


at_fork(after_in_child=_begin_anew)
