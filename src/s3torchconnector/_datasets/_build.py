"""Makes the file of a manifest from rows."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterable
from typing import Any

from s3torchconnector import _etag_columns
from s3torchconnector._datasets import _manifest_file
from s3torchconnector._datasets._manifest_file import Header
from s3torchconnector._datasets._rows import Row, Rows, Samples
from s3torchconnector._datasets._sample_columns import ARCHIVES, BLOCK, GROUPS, RANGES, Kind, SampleColumns
from s3torchconnector._datasets._sample_rows import SampleRow, SampleRows, samples_of
from s3torchconnector._errors import S3FormatError
from s3torchconnector._etag import bare, is_weak
from s3torchconnector._mapped_bytes import MappedBytes

_MOST_SUFFIXES = 2**20


class Counted(Iterable[Row]):
    """Rows. Some may be left out because they are archived.

    Attributes:
        archived: how many, so far.
    """

    archived = 0


def build(rows: Iterable[Row], origin: Iterable[str] = (), *, created: int | None = None, archived: int = 0) -> Rows:
    """A manifest of objects, in memory. ``rows`` may say how many objects they left out: see ``Counted``."""
    objects = _ObjectColumns()
    for row in rows:
        objects.add(row)
    archived = rows.archived if isinstance(rows, Counted) else archived
    return Rows(_file(objects, None, {}, tuple(origin), created, archived), trusted=True)


def build_samples(
    kind: Kind, samples: Iterable[SampleRow], origin: Iterable[str] = (), *, created: int | None = None
) -> Samples:
    """A manifest of samples that are not whole objects, in memory.

    Raises:
        S3FormatError: the members have too many different names.
    """
    objects, columns = _ObjectColumns(), _SampleColumns(kind)
    for sample in samples:
        columns.add(sample, objects)
    described, numbers = columns.finished()
    return samples_of(_file(objects, described, numbers, tuple(origin), created, 0), trusted=True)


def chosen(samples: Samples, numbers: Iterable[int]) -> Samples:
    """A manifest of some of the samples of another."""
    header = samples.header
    if isinstance(samples, SampleRows):
        rows = map(samples.row, numbers)
        return build_samples(samples.columns.kind, rows, header.origin, created=header.created)
    assert isinstance(samples, Rows)
    return build(map(samples.row, numbers), header.origin, created=header.created)


class _ObjectColumns:
    """The columns of objects: see ``_manifest_file``."""

    def __init__(self) -> None:
        self.buckets: dict[str, int] = {}
        self.key_ends = array("Q")
        self.keys = bytearray()
        self._bucket_of = array("I")
        self._sizes = array("Q")
        self.etags = _etag_columns.EtagColumns()

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, row: Row) -> None:
        self._bucket_of.append(self.buckets.setdefault(row.bucket, len(self.buckets)))
        self.keys += row.key.encode("utf-8", "surrogatepass")
        self.key_ends.append(len(self.keys))
        self._sizes.append(row.size)
        self.etags.add(row.etag if is_weak(row.etag) else bare(row.etag))

    def columns(self) -> dict[str, Any]:
        columns = {"key_ends": self.key_ends, "sizes": self._sizes, "keys": self.keys, **self.etags.columns()}
        return columns if len(self.buckets) < 2 else {**columns, "bucket_of": self._bucket_of}


class _Numbers:
    """A column that is narrow until a number needs the wider form.

    Args:
        narrow, wide: formats of ``array``.
        unit: what a number of the narrow form stands for.
    """

    def __init__(self, narrow: str, wide: str, unit: int = 1) -> None:
        self.values = array(narrow)
        self._wide = wide
        self._unit = unit
        self.is_wide = False

    def append(self, value: int) -> None:
        if not self.is_wide:
            try:
                if value % self._unit == 0:
                    self.values.append(value // self._unit)
                    return
            except OverflowError:
                pass  # it needs the wider form
            self.values = array(self._wide, (each * self._unit for each in self.values))
            self.is_wide = True
        self.values.append(value)


class _SampleColumns:
    """The columns of samples: see ``_sample_columns``."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._numbers = {
            "member_ends": _Numbers("I", "Q"),
            "object_of": _Numbers("I", "Q"),
            "name_ends": _Numbers("I", "Q"),
            "starts": _Numbers("I", "Q", BLOCK if kind == ARCHIVES else 1),
            "lengths": _Numbers("I", "Q"),
            "crcs": _Numbers("I", "Q"),
            "crc32cs": _Numbers("I", "Q"),
            "suffix_of": _Numbers("H", "I"),
        }
        self._names = bytearray()
        self._suffixes: dict[str | None, int] = {}
        self._objects: dict[Row, int] = {}
        self._samples = self._members = 0
        self._has_crc32c = True

    def add(self, sample: SampleRow, objects: _ObjectColumns) -> None:
        numbers = self._numbers
        self._samples += 1
        self._members += len(sample.parts)
        if self._kind == GROUPS:
            for part in sample.parts:
                objects.add(part.row)
        else:
            self._add_places(sample, objects)
        if self._kind != RANGES:
            numbers["member_ends"].append(self._members)
            self._names += sample.name.encode("utf-8", "surrogateescape")
            numbers["name_ends"].append(len(self._names))
            for part in sample.parts:
                numbers["suffix_of"].append(self._suffixes.setdefault(part.suffix, len(self._suffixes)))
            if len(self._suffixes) > _MOST_SUFFIXES:
                raise S3FormatError(
                    f"the files of samples have more than {_MOST_SUFFIXES} different extensions. What follows the "
                    "first dot of a file's name is its extension: use no dots in the names of samples"
                )

    def _add_places(self, sample: SampleRow, objects: _ObjectColumns) -> None:
        row, numbers = sample.parts[0].row, self._numbers
        number = self._objects.setdefault(row, len(objects))
        if number == len(objects):
            objects.add(row)
        numbers["object_of"].append(number)
        for part in sample.parts:
            numbers["starts"].append(part.start)
            numbers["lengths"].append(part.stop - part.start)
            if self._kind == ARCHIVES:
                numbers["crcs"].append(part.sums.crc32 or 0)
                numbers["crc32cs"].append(part.sums.crc32c or 0)
                self._has_crc32c &= part.suffix is None or part.sums.crc32c is not None

    def finished(self) -> tuple[SampleColumns, dict[str, Any]]:
        """What the header says of them, and the columns."""
        wide = tuple([name for name, numbers in self._numbers.items() if numbers.is_wide])
        described = SampleColumns(
            self._kind,
            self._samples,
            self._members,
            len(self._names),
            tuple(self._suffixes),
            wide,
            () if self._has_crc32c else ("crc32cs",),
        )
        return described, {name: self._numbers[name].values for name in described.numbers()} | {"names": self._names}


def _file(
    objects: _ObjectColumns,
    samples: SampleColumns | None,
    numbers: dict[str, Any],
    origin: tuple[str, ...],
    created: int | None,
    archived: int,
) -> MappedBytes:
    """The file, in memory."""
    columns = {**objects.columns(), **numbers}
    created = int(time.time()) if created is None else created
    header = Header(
        tuple(objects.buckets), origin, created, archived, len(objects), len(objects.keys), len(columns["etags"]),
        objects.etags.kind, "0" * 64, samples,
    )  # fmt: skip
    start = len(header.encoded())

    def fill(view: memoryview) -> None:
        for name, place in header.columns().items():
            if place:
                view[start + place.start : start + place.stop] = memoryview(columns[name]).cast("B")
        signed = _manifest_file.fingerprint(header, view[start:])
        view[:start] = Header(**{**header.__dict__, "fingerprint": signed}).encoded()

    return MappedBytes.filled(start + header.data_size, fill)
