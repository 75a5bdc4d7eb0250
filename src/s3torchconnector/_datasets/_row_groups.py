"""Where the row groups of Parquet files lie: the footer of each file is read, many at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from s3torchconnector._datasets._at_once import in_order
from s3torchconnector._datasets._named_files import files_of
from s3torchconnector._datasets._ranges import AT_ONCE, named_error, read_range
from s3torchconnector._datasets._rows import Row
from s3torchconnector._datasets._sample_rows import Part, SampleRow
from s3torchconnector._errors import S3FormatError
from s3torchconnector._progress import Progress
from s3torchconnector._s3client import S3Client
from s3torchconnector._samples import _parquet
from s3torchconnector._samples._records import parquet_form

_SUFFIXES = (".parquet", ".parq", ".pq")
_FIRST = 64 * 1024  # bytes that are fetched of the end of a file: most footers are shorter
_LEAST_TAIL = 4096  # bytes; tails are rounded up to powers of two, so that many files have the same form
_NEAR = 8  # what follows the last row group is fetched with it if that is an eighth of it, or ``_FIRST``, or less


def row_groups_of(client: S3Client, uris: Iterable[str], columns: list[str] | None) -> Iterator[SampleRow]:
    """The row groups of all files, in order; those without rows are left out.

    Raises:
        S3FormatError: one of them is no Parquet file, or is encrypted, or lacks a column.
        ImportError: pyarrow is missing.
        S3Exception: an error occurred accessing S3.
    """
    _parquet.parquet_module("Parquet files")
    files = list(files_of(client, uris, _SUFFIXES, "Name the files, or a prefix that they lie below"))
    progress = Progress(client.s3client_config.progress, "reading footers", "files", len(files))
    for found in progress.each(in_order(partial(_of_file, client, columns), files, AT_ONCE, 2 * AT_ONCE)):
        yield from found


def _of_file(client: S3Client, columns: list[str] | None, row: Row) -> list[SampleRow]:
    tail = read_range(client, row, max(0, row.size - _FIRST), row.size)
    try:
        length = _parquet.footer_size(tail, row.size)
    except S3FormatError as error:
        raise named_error(row, "Parquet", error) from error
    if length > len(tail):
        tail = read_range(client, row, row.size - length, row.size - len(tail)) + tail
    try:
        metadata = _parquet.metadata_of(tail[-length:])
        groups = list(_parquet.row_groups(metadata, columns, row.size - length))
    except S3FormatError as error:
        raise named_error(row, "Parquet", error) from error
    form = parquet_form(columns, max(_LEAST_TAIL, 1 << (length - 1).bit_length()))
    if groups:  # the footer is needed, too: it is fetched with the last row group, if it lies near
        number, start, stop = groups[-1]
        if row.size - stop <= max(_FIRST, (stop - start) // _NEAR):
            groups[-1] = _parquet.RowGroup(number, start, row.size)
    return [SampleRow(str(each.number), [Part(row, form, each.start, each.stop)]) for each in groups]
