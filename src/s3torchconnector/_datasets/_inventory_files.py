"""The files of an S3 Inventory report: CSV in gzip, and Parquet.

In CSV, there is no header, and keys are encoded as in a URL; ORC is not read:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory.html#storage-inventory-contents.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import re
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

from s3torchconnector._errors import S3Exception, S3FormatError
from s3torchconnector._s3client import S3Client
from s3torchconnector._samples._parquet import parquet_module
from s3torchconnector._types import ObjectInfo
from s3torchconnector._uri import display_uri
from s3torchconnector.s3reader import S3Reader

_FIELDS = {  # by their names in CSV and in Parquet, without underscores and in lower case
    "key": "key",
    "size": "size",
    "etag": "etag",
    "lastmodifieddate": "modified",
    "storageclass": "storage_class",
    "islatest": "is_latest",
    "isdeletemarker": "is_delete_marker",
    "intelligenttieringaccesstier": "tier",
}
_ARCHIVE_TIERS = ("ARCHIVE", "DEEP_ARCHIVE", "ARCHIVE_ACCESS", "DEEP_ARCHIVE_ACCESS")
_PARQUET_FIELD = re.compile(r"\b(?:required|optional)\s+\w+\s+(\w+)")
_COPIED = 1 << 20  # bytes at a time
_ROWS = 4096  # of a Parquet file at a time


class Schema(NamedTuple):
    """The format of a report's files, and its fields: by our names, the place in CSV or the column in Parquet."""

    is_parquet: bool
    fields: dict[str, Any]


class Record(NamedTuple):
    """One object of a report, and whether S3 Intelligent-Tiering has archived it."""

    info: ObjectInfo
    is_archived: bool


def schema_of(uri: str, file_format: str, schema: str) -> Schema:
    """
    Raises:
        S3FormatError: the format cannot be read.
    """
    if file_format not in ("CSV", "Parquet"):
        raise S3FormatError(
            f"the report {uri} is in the format {file_format}: choose CSV or Parquet in the inventory's configuration"
        )
    is_parquet = file_format == "Parquet"
    names = _PARQUET_FIELD.findall(schema) if is_parquet else [name.strip() for name in schema.split(",")]
    known = {name: _FIELDS.get(name.replace("_", "").lower()) for name in names}
    return Schema(is_parquet, {ours: name if is_parquet else names.index(name) for name, ours in known.items() if ours})


@dataclass(frozen=True)
class Listing:
    """One file of a report."""

    bucket: str
    key: str
    size: int
    md5: str
    schema: Schema

    def records(self, client: S3Client) -> Iterator[Record]:
        """The latest versions of objects in it.

        Raises:
            S3FormatError: it is damaged, or not the file that the report names.
            S3Exception: an error occurred accessing S3.
        """
        with client.get_object(self.bucket, self.key) as reader:
            summed = _Summed(reader)
            try:
                rows = self._parquet(summed) if self.schema.is_parquet else self._csv(summed)
                for row in rows:
                    record = _record(row)
                    if record is not None:
                        yield record
            except (OSError, EOFError, ValueError, zlib.error, csv.Error, IndexError) as error:
                if not _is_of_content(error):
                    raise
                raise self._damaged(f"{error}") from error
            summed.drain()
        if summed.count != self.size or summed.md5.hexdigest() != self.md5.lower():
            raise self._damaged("its size or MD5 is another one than the report says")

    def _damaged(self, why: str) -> S3FormatError:
        return S3FormatError(
            f"{display_uri(self.bucket, self.key)} cannot be read as a file of an S3 Inventory report: {why}"
        )

    def _csv(self, file: _Summed) -> Iterator[dict[str, Any]]:
        fields = self.schema.fields
        with gzip.open(io.BufferedReader(file, _COPIED), "rt", encoding="utf-8", newline="") as text:
            for row in csv.reader(text):
                values = {name: row[place] for name, place in fields.items()}
                values["key"] = unquote_plus(values["key"])
                yield values

    def _parquet(self, file: _Summed) -> Iterator[dict[str, Any]]:
        parquet = parquet_module("reports in Parquet", ", or choose CSV")
        names = list(self.schema.fields)
        with tempfile.TemporaryFile() as local:  # Parquet is read from its end, and its MD5 from the beginning
            while piece := file.read(_COPIED):
                local.write(piece)
            for batch in parquet.ParquetFile(local).iter_batches(_ROWS, columns=list(self.schema.fields.values())):
                columns = [batch.column(self.schema.fields[name]).to_pylist() for name in names]
                for values in zip(*columns, strict=True):
                    yield dict(zip(names, values, strict=True))


class _Summed(io.RawIOBase):
    """A file whose bytes are counted, and summed by MD5, as they are read.

    Attributes:
        md5: of what was read.
        count: how many bytes that is.
    """

    def __init__(self, file: S3Reader) -> None:
        self._file = file
        self.md5 = hashlib.md5(usedforsecurity=False)
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        size = self._file.readinto(view)
        self.md5.update(view[:size])
        self.count += size
        return size

    def drain(self) -> None:
        """Read what is left."""
        while self.read(_COPIED):
            pass


def _record(values: dict[str, Any]) -> Record | None:
    """One row; None if it is a delete marker, or a version that is not the latest."""
    if _is(values.get("is_delete_marker"), False) and _is(values.get("is_latest"), True):
        size, etag, tier = int(values["size"]), str(values["etag"]), values.get("tier")
        info = ObjectInfo(
            values["key"], etag, size, _seconds(values.get("modified")), values.get("storage_class") or None
        )
        return Record(info, tier in _ARCHIVE_TIERS)
    return None


def _is(flag: Any, wanted: bool) -> bool:
    """Whether a flag is as wanted; those of reports on latest versions alone are missing or empty."""
    return flag in (None, "", wanted, str(wanted).lower())


def _seconds(time: Any) -> int:
    if isinstance(time, datetime):
        return int((time if time.tzinfo else time.replace(tzinfo=timezone.utc)).timestamp())
    if not time:
        return 0
    return int(datetime.fromisoformat(str(time)[:19]).replace(tzinfo=timezone.utc).timestamp())


def _is_of_content(error: Exception) -> bool:
    """Whether an error is about what the file holds, and not one of reading it."""
    return not isinstance(error, S3Exception) and (not isinstance(error, OSError) or error.errno is None)
