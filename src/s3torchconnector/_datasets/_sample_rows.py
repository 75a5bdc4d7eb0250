"""The samples of a manifest that are not whole objects, read from its columns: each is made when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from s3torchconnector._datasets._rows import Row, Rows, Samples, check_ends, check_numbers, in_tensors
from s3torchconnector._datasets._sample_columns import ARCHIVES, GROUPS, RANGES, RECORDS, SampleColumns
from s3torchconnector._errors import S3FormatError
from s3torchconnector._mapped_bytes import MappedBytes
from s3torchconnector._s3bucket_key_data import S3BucketKeyData
from s3torchconnector._samples._items import ArchiveItem, GroupItem, Member, RangeItem, RecordItem, name_of, size_of
from s3torchconnector._samples._sums import UNKNOWN, Sums
from s3torchconnector._types import ObjectInfo


class Part(NamedTuple):
    """A member of a sample as it goes into a manifest.

    Attributes:
        row: its object.
        suffix: its name in the sample; None if it is all of the sample. Of a record, its form.
        start, stop: its bytes in the object; of groups, they are not looked at: a part is the whole object.
        sums: the checksums of its bytes, of archives.
    """

    row: Row
    suffix: str | None = None
    start: int = 0
    stop: int = 0
    sums: Sums = UNKNOWN


class SampleRow(NamedTuple):
    """A sample as it goes into a manifest. All parts of a sample of an archive have the same ``row``.

    Attributes:
        name: what names it, in its archive or among all groups; ranges have none.
        parts: what it consists of, at least one.
    """

    name: str
    parts: Sequence[Part]


class SampleRows(Samples):
    """The samples of a file that was checked; see ``Rows``."""

    def __init__(self, objects: Rows, columns: SampleColumns, *, trusted: bool) -> None:
        self.header, self.memory = objects.header, objects.memory
        self.objects, self.columns = objects, columns
        places = objects.header.columns()

        def column(name: str) -> memoryview:
            place = places.get(name, range(0))
            view = objects.memory.view[objects.start + place.start : objects.start + place.stop]
            return view if name == "names" else view.cast(columns.code(name))

        self._member_ends, self._object_of = column("member_ends"), column("object_of")
        self._name_ends, self._names = column("name_ends"), column("names")
        self._starts, self._lengths = column("starts"), column("lengths")
        self._crcs, self._crc32cs = column("crcs"), column("crc32cs")
        self._suffix_of, self._suffixes = column("suffix_of"), columns.suffixes
        self._kind, self._unit, self._count = columns.kind, columns.start_unit, columns.samples
        if not trusted:
            self._check()

    def _check(self) -> None:
        columns, objects = self.columns, len(self.objects)
        if columns.kind in (ARCHIVES, GROUPS):
            check_ends(self._member_ends, columns.members, 1, "members")
        if columns.kind != RANGES:
            check_numbers(self._suffix_of, len(columns.suffixes), "members")
        if columns.kind == GROUPS and columns.members != objects:
            raise S3FormatError(f"its groups refer to {columns.members} objects, but it lists {objects}")
        check_numbers(self._object_of, objects, "objects")
        if columns.name_bytes:
            check_ends(self._name_ends, columns.name_bytes, 0, "names")

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> S3BucketKeyData:
        if not 0 <= i < self._count:
            raise IndexError(f"index {i} is out of range for a manifest of {self._count} samples")
        if self._kind == GROUPS:
            suffixes, numbers = self._suffixes, self._suffix_of
            return GroupItem(self._name(i), [(suffixes[numbers[j]] or "", self.objects[j]) for j in self._members(i)])
        bucket, key, size, etag = self.objects.row(self._object_of[i])
        info = ObjectInfo(key, etag, size, 0)
        if self._kind == RANGES:
            return RangeItem(bucket, key, info, *self._range(i, 0, size))
        if self._kind == RECORDS:
            return RecordItem(bucket, key, info, *self._range(i, 0, size), self._name(i), self._form(i) or "")
        members = self._archive_members(i, size)
        start, stop = members[0].start, members[-1].stop
        named = members if self._suffixes[self._suffix_of[self._members(i).start]] is not None else []
        return ArchiveItem(bucket, key, info, start, stop, self._name(i), named)

    def _members(self, i: int) -> range:
        return range(self._member_ends[i - 1] if i else 0, self._member_ends[i])

    def _archive_members(self, i: int, size: int) -> list[Member]:
        found, position = [], 0
        for j in self._members(i):
            start, position = self._range(j, position, size)
            suffix = self._suffixes[self._suffix_of[j]]
            sums = UNKNOWN if suffix is None else Sums(self._crcs[j], self._crc32cs[j] if self._crc32cs else None)
            found.append(Member(suffix or "", start, position, sums))
        return found

    def _range(self, j: int, least: int, most: int) -> tuple[int, int]:
        start = self._starts[j] * self._unit
        stop = start + self._lengths[j]
        if not least <= start <= stop <= most:
            raise S3FormatError(f"a member has the bytes {start} to {stop} of an object of {most} bytes")
        return start, stop

    def _form(self, i: int) -> str | None:
        return self._suffixes[self._suffix_of[i]] if self._kind == RECORDS else None

    def _name(self, i: int) -> str:
        if not self.columns.name_bytes:
            return ""
        return str(self._names[self._name_ends[i - 1] if i else 0 : self._name_ends[i]], "utf-8", "surrogateescape")

    def row(self, i: int) -> SampleRow:
        """The sample as it went into the manifest."""
        if self._kind == GROUPS:
            parts = [Part(self.objects.row(j), self._suffixes[self._suffix_of[j]]) for j in self._members(i)]
            return SampleRow(self._name(i), parts)
        row = self.objects.row(self._object_of[i])
        if self._kind in (RANGES, RECORDS):
            return SampleRow(self._name(i), [Part(row, self._form(i), *self._range(i, 0, row.size))])
        suffixes = (self._suffixes[self._suffix_of[j]] for j in self._members(i))
        members = zip(suffixes, self._archive_members(i, row.size), strict=True)
        return SampleRow(self._name(i), [Part(row, suffix, *member[1:]) for suffix, member in members])

    def __iter__(self) -> Iterator[SampleRow]:
        return map(self.row, range(len(self)))

    def name_bytes(self, i: int) -> bytes:
        return name_of(self[i]).encode("utf-8", "surrogateescape")

    def info(self, i: int) -> ObjectInfo:
        item = self[i]
        return ObjectInfo(name_of(item), item.object_info.etag if item.object_info else "", size_of(item), 0)

    @property
    def total_bytes(self) -> int:
        if self._kind == GROUPS:
            return self.objects.total_bytes
        return sum(int(some.sum()) for some in in_tensors(self._lengths))

    def size(self, i: int) -> int:
        if self._kind == GROUPS:
            return sum(self.objects.sizes[j] for j in self._members(i))
        return sum(self._lengths[j] for j in self._members(i)) if self._kind == ARCHIVES else self._lengths[i]

    def __reduce__(self) -> tuple[object, ...]:
        return _trusted, (self.memory,)


def samples_of(memory: MappedBytes, *, trusted: bool = False) -> Samples:
    """The samples of a file; see ``Rows``.

    Raises:
        S3FormatError: it is no manifest, or a damaged one.
    """
    objects = Rows(memory, trusted=trusted)
    columns = objects.header.columns_of_samples
    return objects if columns is None else SampleRows(objects, columns, trusted=trusted)


def _trusted(memory: MappedBytes) -> Samples:
    return samples_of(memory, trusted=True)
