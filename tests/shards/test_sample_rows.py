"""The file of a manifest of samples: what goes in comes out, in few bytes; a damaged file is an error."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3torchconnector._datasets import _manifest_file
from s3torchconnector._datasets._build import build, build_samples, chosen
from s3torchconnector._datasets._manifest_file import PREFIX_SIZE
from s3torchconnector._datasets._rows import Row, Samples
from s3torchconnector._datasets._sample_columns import ARCHIVES, GROUPS, RANGES, RECORDS
from s3torchconnector._datasets._sample_rows import Part, SampleRow, SampleRows, samples_of
from s3torchconnector._mapped_bytes import MappedBytes
from s3torchconnector._samples._items import ArchiveItem, GroupItem, RangeItem, RecordItem, name_of, size_of
from s3torchconnector._samples._sums import UNKNOWN, Sums
from s3torchconnector.errors import S3FormatError

SIZE = 2**50
ROWS = st.builds(Row, st.sampled_from(["b", "c"]), st.text(min_size=1, max_size=9), st.just(SIZE), st.just('"x"'))
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)


SUMS = st.builds(Sums, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))


@st.composite
def archive_samples(draw: Any) -> SampleRow:
    row, position, parts = draw(ROWS), draw(st.sampled_from([0, 512, 2**41 - 512, 2**41])), []
    for name in draw(st.lists(NAMES, min_size=1, max_size=3, unique=True)):
        size = draw(st.sampled_from([0, 1, 511, 2**32 - 1, 2**32]))
        parts.append(Part(row, name, position + 512, position + 512 + size, draw(SUMS)))
        position = -(-parts[-1].stop // 512) * 512
    return SampleRow(draw(NAMES), parts)


RANGE_SAMPLES = st.builds(
    lambda row, start, size: SampleRow("", [Part(row, None, start, start + size)]),
    ROWS, st.sampled_from([0, 1, 2**32 - 1, 2**32]), st.sampled_from([0, 1, 2**32]),
)  # fmt: skip
RECORD_SAMPLES = st.builds(
    lambda name, form, row, start, size: SampleRow(name, [Part(row, form, start, start + size)]),
    NAMES, NAMES, ROWS, st.sampled_from([0, 1, 2**32 - 1, 2**32]), st.sampled_from([0, 1, 2**32]),
)  # fmt: skip
GROUP_SAMPLES = st.builds(
    lambda name, parts: SampleRow(name, [Part(row, suffix) for suffix, row in parts.items()]),
    NAMES, st.dictionaries(NAMES, ROWS, min_size=1, max_size=3),
)  # fmt: skip
ALL = st.one_of(
    st.tuples(st.just(ARCHIVES), st.lists(archive_samples(), max_size=5)),
    st.tuples(st.just(RANGES), st.lists(RANGE_SAMPLES, max_size=5)),
    st.tuples(st.just(RECORDS), st.lists(RECORD_SAMPLES, max_size=5)),
    st.tuples(st.just(GROUPS), st.lists(GROUP_SAMPLES, max_size=5)),
)


def opened(data: bytes) -> Samples:
    def fill(view: memoryview) -> None:
        view[:] = data

    return samples_of(MappedBytes.filled(len(data), fill))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=80)
@given(ALL)
def test_any_samples_round_trip(kind_and_samples: Any) -> None:
    kind, samples = kind_and_samples
    built = build_samples(kind, samples, ["s3://b/"], created=1)
    data = bytes(built.memory.view)
    found = opened(data)
    assert isinstance(found, SampleRows)
    assert list(found) == samples
    assert found.header == built.header
    assert bytes(build_samples(kind, found, ["s3://b/"], created=1).memory.view) == data
    sizes = [
        sum(part.row.size if kind == GROUPS else part.stop - part.start for part in each.parts) for each in samples
    ]
    assert [found.size(i) for i in range(len(found))] == sizes
    assert found.total_bytes == sum(sizes)
    assert list(pickle.loads(pickle.dumps(found))) == samples
    assert list(chosen(found, range(0, len(found), 2))) == samples[::2]  # type: ignore[call-overload]


SHARD = Row("b", "s/0.tar", 10_240, '"00112233445566778899aabbccddeeff"')
SHARDS = [
    SampleRow("k0", [Part(SHARD, "jpg", 512, 600, Sums(7, 5)), Part(SHARD, "txt", 1536, 1540, Sums(8, 5))]),
    SampleRow("k1", [Part(SHARD, "jpg", 2560, 3000, Sums(9, 5))]),
    SampleRow("5", [Part(SHARD, None, 3072, 6144)]),
]
IMAGE, TEXT = Row("b", "0.jpg", 10, '"aa"'), Row("b", "0.txt", 2, '"bb"')
PAIR = [SampleRow("0", [Part(IMAGE, "jpg"), Part(TEXT, "txt")])]


def test_items_say_what_to_fetch() -> None:
    archives = build_samples(ARCHIVES, SHARDS)
    first, last = archives[0], archives[2]
    assert isinstance(first, ArchiveItem)
    assert isinstance(last, ArchiveItem)
    assert (first.bucket, first.key, first.start, first.stop) == ("b", "s/0.tar", 512, 1540)
    assert [tuple(member) for member in first.members] == [
        ("jpg", 512, 600, Sums(7, 5)),
        ("txt", 1536, 1540, Sums(8, 5)),
    ]
    assert (name_of(first), size_of(first)) == ("s/0.tar/k0", 92)
    assert (last.start, last.stop, last.members, size_of(last)) == (3072, 6144, [], 3072)
    ranges = build_samples(RANGES, [SampleRow("", [Part(SHARD, None, 3, 9)])])[0]
    assert isinstance(ranges, RangeItem)
    assert (name_of(ranges), size_of(ranges), ranges.start) == ("s/0.tar[3:9]", 6, 3)
    record = build_samples(RECORDS, [SampleRow("7", [Part(SHARD, "form", 3, 9)])])[0]
    assert isinstance(record, RecordItem)
    assert (name_of(record), size_of(record), record.start, record.form) == ("s/0.tar/7", 6, 3, "form")
    group = build_samples(GROUPS, PAIR)[0]
    assert isinstance(group, GroupItem)
    assert [(name, part.key) for name, part in group.parts] == [("jpg", "0.jpg"), ("txt", "0.txt")]
    assert (name_of(group), size_of(group)) == ("0", 12)
    for item in (first, last, ranges, record, group):
        copy = pickle.loads(pickle.dumps(item))
        assert (copy, vars(copy)) == (item, vars(item))


@pytest.mark.parametrize(("kind", "samples"), [(ARCHIVES, SHARDS), (GROUPS, PAIR), (ARCHIVES, [])])
def test_every_flipped_byte_is_an_error(kind: Any, samples: list[SampleRow]) -> None:
    data = bytes(build_samples(kind, samples).memory.view)
    for place in range(len(data)):
        with pytest.raises(S3FormatError):
            opened(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])


def test_a_member_takes_little_room() -> None:
    many = [SampleRow(f"{i:09}", [Part(SHARD, "jpg", 512, 600, Sums(i, 5))]) for i in range(10_000)]
    built = build_samples(ARCHIVES, many)
    # 16 for its place and sums, 2 for its name; of its sample 12, and its key.
    assert len(built.memory.view) / 10_000 == pytest.approx(16 + 2 + 12 + 9, abs=0.5)


def test_sums_that_are_not_known_of_all_members_are_left_out() -> None:
    some = [*SHARDS, SampleRow("k2", [Part(SHARD, "jpg", 7168, 7170, Sums(3, None))])]
    found = opened(bytes(build_samples(ARCHIVES, some).memory.view))
    assert isinstance(found, SampleRows)
    assert [part.sums for sample in found for part in sample.parts] == [
        Sums(7, None), Sums(8, None), Sums(9, None), UNKNOWN, Sums(3, None),
    ]  # fmt: skip


def test_objects_are_stored_as_before() -> None:
    """An older release loads them, and a manifest that it stored has the same fingerprint."""
    built = build([SHARD], created=1)
    header = json.loads(bytes(built.memory.view[PREFIX_SIZE:]).split(b"\0")[0])
    assert header["format"] == 1
    assert "columns_of_samples" not in header
    assert built.header.fingerprint == "c1678114ca57b967088549365dc56ad09a5fc05e82b346d3606af532f6e0a01f"
    assert json.loads(bytes(build_samples(GROUPS, PAIR).memory.view[PREFIX_SIZE:]).split(b"\0")[0])["format"] == 2


def lying(**changes: Any) -> bytes:
    """A file that says something else, with all sums right."""
    built = build_samples(ARCHIVES, SHARDS)
    columns = built.header.columns_of_samples
    assert columns is not None
    start = len(built.header.encoded())
    body = bytearray(built.memory.view[start:])
    for name, content in changes.items():
        place = built.header.columns()[name]
        body[place.start : place.start + len(content)] = content
    return replace(built.header, fingerprint=_manifest_file.fingerprint(built.header, body)).encoded() + bytes(body)


@pytest.mark.parametrize(
    ("column", "content"),
    [
        ("member_ends", b"\2\0\0\0\2\0\0\0"),
        ("member_ends", b"\2\0\0\0\3\0\0\0\5"),
        ("object_of", b"\1"),
        ("name_ends", b"\2\0\0\0\1\0\0\0"),
        ("suffix_of", b"\3"),
    ],
)
def test_numbers_that_cannot_be_are_an_error(column: str, content: bytes) -> None:
    with pytest.raises(S3FormatError, match=r"invalid|do not exist"):
        opened(lying(**{column: content}))


def test_a_place_outside_the_object_is_an_error_when_it_is_read() -> None:
    for column, content in (("starts", b"\xff\xff"), ("lengths", b"\0\0\1"), ("starts", b"\1\0\0\0\0\0\0\0")):
        with pytest.raises(S3FormatError, match="of an object of 10240 bytes"):
            opened(lying(**{column: content}))[0]
