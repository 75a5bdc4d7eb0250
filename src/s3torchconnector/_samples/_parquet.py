"""Parquet files: the positions of their row groups, and tables of row groups whose bytes were fetched.

A file ends with its footer, the footer's length in four bytes, and ``PAR1``; ``PARE`` if the footer is encrypted. See
https://parquet.apache.org/docs/file-format/. pyarrow reads the footer, and decodes.
"""

from __future__ import annotations

import io
import os
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from s3torchconnector._errors import S3FormatError
from s3torchconnector._late_imports import no_fork

END_SIZE = 8  # bytes: the footer's length, and what names the format
_MAGIC, _ENCRYPTED = b"PAR1", b"PARE"
# A plain footer of a file with encrypted columns is signed: a nonce of 12 bytes and a tag of 16 follow it. See
# https://parquet.apache.org/docs/file-format/data-pages/encryption/. pyarrow ends the process if it is asked where
# such a column lies.
_SIGNATURE = 28
# Old releases of parquet-mr leave the header of the dictionary page out of a column's size (PARQUET-816). Readers take
# so many bytes more.
_OLD_WRITER, _MISSING = "parquet-mr", 100


class RowGroup(NamedTuple):
    """A row group that has rows: its number in the file, and its bytes there."""

    number: int
    start: int
    stop: int


def parquet_module(what: str, instead: str = "") -> Any:
    """``pyarrow.parquet``.

    Raises:
        ImportError: it is not installed.
    """
    try:
        with no_fork:
            from pyarrow import parquet
    except ImportError as error:
        raise ImportError(f"{what} need pyarrow: from the checkout, pip install '.[parquet]'{instead}") from error
    return parquet


def footer_size(tail: bytes, size: int) -> int:
    """How many bytes at the end of a file of ``size`` bytes are its footer, with what follows that.

    Raises:
        S3FormatError: it is not a Parquet file, or its footer is encrypted.
    """
    if tail[-len(_MAGIC) :] == _ENCRYPTED:
        raise S3FormatError("its footer is encrypted: store it without Parquet's own encryption")
    if tail[-len(_MAGIC) :] != _MAGIC:
        raise S3FormatError(f"it is not a Parquet file: it has {size} bytes and ends with {bytes(tail[-4:])!r}")
    length = int.from_bytes(tail[-END_SIZE : -len(_MAGIC)], "little") + END_SIZE
    if length + len(_MAGIC) > size:
        raise S3FormatError(f"it is truncated or damaged: its footer would have {length} of its {size} bytes")
    return length


def metadata_of(footer: bytes) -> Any:
    """What a footer tells: a ``pyarrow.parquet.FileMetaData``.

    Raises:
        S3FormatError: it is damaged, or of a file with encrypted columns.
    """
    parquet = parquet_module("Parquet files")
    with no_fork:
        import pyarrow

    try:
        metadata = parquet.read_metadata(pyarrow.BufferReader(footer))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise S3FormatError(f"its footer is damaged: {error}") from error
    if metadata.serialized_size + _SIGNATURE + END_SIZE == len(footer):
        raise S3FormatError("some of its columns are encrypted: store it without Parquet's own encryption")
    return metadata


def row_groups(metadata: Any, columns: Collection[str] | None, end: int) -> Iterator[RowGroup]:
    """The row groups of a file: the bytes from the first to the last of some columns, or of all.

    Args:
        metadata: what the footer tells.
        columns: their names; None: all.
        end: where the footer begins, before which all data must lie.

    Raises:
        S3FormatError: there is no such column, or its data is not in the file.
    """
    numbers = _numbers_of(metadata, columns)
    more = _MISSING if str(metadata.created_by).startswith(_OLD_WRITER) else 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if not group.num_rows or not numbers:
            continue
        places = [_place(group.column(i)) for i in numbers]
        start, stop = min(first for first, _ in places), max(last for _, last in places)
        if not len(_MAGIC) <= start <= stop <= end:
            raise S3FormatError(
                f"its footer says that the row group {number} has the bytes {start} to {stop}, and begins at {end}"
            )
        yield RowGroup(number, start, min(stop + more, end))


def _numbers_of(metadata: Any, columns: Collection[str] | None) -> list[int]:
    """The numbers of columns in the file; a column with a nested type has several."""
    paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    if columns is None:
        return list(range(len(paths)))
    found: set[int] = set()
    for name in columns:
        numbers = [i for i, path in enumerate(paths) if path == name or path.startswith(f"{name}.")]
        if not numbers:
            raise S3FormatError(f"it has no column {name!r}. Its columns are {', '.join(paths)}")
        found.update(numbers)
    return sorted(found)


def _place(column: Any) -> tuple[int, int]:
    """The bytes of a column of a row group."""
    if column.file_path:
        raise S3FormatError(f"its data is in other files, such as {column.file_path}: name those")
    start = column.data_page_offset
    if column.has_dictionary_page and 0 < (column.dictionary_page_offset or 0) < start:
        start = column.dictionary_page_offset
    return start, start + column.total_compressed_size


def table_of(metadata: Any, number: int, columns: Collection[str] | None, data: bytes, start: int) -> Any:
    """The ``pyarrow.Table`` of a row group.

    Args:
        metadata: what the file's footer tells.
        number: of the row group.
        columns: names of those to decode; None: all.
        data: bytes of the file, from ``start`` on.
        start: where in the file they begin.

    Raises:
        S3FormatError: the bytes cannot be decoded.
    """
    parquet = parquet_module("Parquet files")
    with no_fork:
        import pyarrow

    if not 0 <= number < metadata.num_row_groups:
        raise S3FormatError(f"it has only {metadata.num_row_groups} row groups, and no number {number}")
    try:
        # No threads: pyarrow's do not exist in a forked child, and datasets have their own threads and processes.
        file = parquet.ParquetFile(
            _Window(data, start), metadata=metadata, pre_buffer=False, page_checksum_verification=True
        )
        return file.read_row_group(number, columns=None if columns is None else list(columns), use_threads=False)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise S3FormatError(f"it cannot be decoded: {error}") from error


class _Window(io.RawIOBase):
    """Some bytes of a file, at their place in it. The others are read as if the file had ended."""

    def __init__(self, data: bytes, start: int) -> None:
        self._view = memoryview(data)
        self._start = start
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        end = self._start + len(self._view)
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: end}[whence]
        return self._position

    def read(self, size: int = -1) -> Any:
        """The bytes themselves, which pyarrow takes without a copy."""
        first = self._position - self._start
        found = self._view[first : first + size] if first >= 0 and size >= 0 else self._view[:0]
        self._position += len(found)
        return found
