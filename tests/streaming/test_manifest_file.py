"""The file of a manifest: what goes in comes out, and a damaged or lying file is an error, never wrong rows."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import zlib
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3torchconnector import _etag
from s3torchconnector._datasets import _manifest_file
from s3torchconnector._datasets._build import build
from s3torchconnector._datasets._manifest_file import Header
from s3torchconnector._datasets._rows import Row, Rows
from s3torchconnector._mapped_bytes import MappedBytes
from s3torchconnector.errors import S3FormatError

SUMS = st.binary(min_size=16, max_size=16).map(bytes.hex)
ETAGS = st.one_of(
    SUMS,
    st.builds("{}-{}".format, SUMS, st.integers(1, 10_000)),
    st.text("abcXYZ019-=_", max_size=40),
    SUMS.map(str.upper),
    SUMS.map('W/"{}"'.format),
)
ROWS = st.lists(
    st.builds(
        Row,
        st.sampled_from(["bucket", "other-bucket", "third"]),
        st.text(min_size=1, max_size=30),
        st.integers(0, 2**50),
        ETAGS,
    ),
    max_size=12,
)
SAMPLE = [
    Row("b", "a/1.jpg", 11, '"00112233445566778899aabbccddeeff"'),
    Row("b", "a/ü.jpg", 2**40, '"00112233445566778899aabbccddee00-17"'),
    Row("other", "z", 0, '"00112233445566778899aabbccddee01"'),
]


def file_of(rows: list[Row]) -> bytes:
    return bytes(build(rows, ["s3://b/a/"], created=1_700_000_000).memory.view)


def opened(data: bytes) -> Rows:
    def fill(view: memoryview) -> None:
        view[:] = data

    return Rows(MappedBytes.filled(len(data), fill))


@given(ROWS)
def test_any_rows_round_trip(rows: list[Row]) -> None:
    data = file_of(rows)
    found = opened(data)
    assert list(found) == [row._replace(etag=_etag.quoted(row.etag)) for row in rows]
    assert len(found) == len(rows)
    assert list(found.sizes) == [row.size for row in rows]
    assert (found.header.origin, found.header.created) == (("s3://b/a/",), 1_700_000_000)
    assert file_of(list(found)) == data


def test_most_etags_take_sixteen_bytes() -> None:
    digest = '"00112233445566778899aabbccddeeff"'
    for etags, kind, size in (([digest], "md5", 16), ([digest, f"{digest[:-1]}-3"], "parts", 32), (["x"], "text", 1)):
        header = build(Row("b", "k", 1, etag) for etag in etags).header
        assert (header.etags, header.etag_bytes) == (kind, size)


@pytest.mark.parametrize("rows", [SAMPLE, SAMPLE[:1], [SAMPLE[0]._replace(etag="text")], []])
def test_every_flipped_byte_is_an_error(rows: list[Row]) -> None:
    data = file_of(rows)
    for place in range(len(data)):
        wrong = data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]
        with pytest.raises(S3FormatError):
            opened(wrong)


@pytest.mark.parametrize("rows", [SAMPLE, []])
def test_every_other_length_is_an_error(rows: list[Row]) -> None:
    data = file_of(rows)
    for length in range(1, len(data)):
        with pytest.raises(S3FormatError):
            opened(data[:length])
    with pytest.raises(S3FormatError):
        opened(data + bytes(64))


def lying(rows: list[Row], header: Callable[[Header], Header], column: str = "", content: bytes = b"") -> bytes:
    """A file that says something else, with all sums right."""
    original = build(rows)
    start = len(original.header.encoded())
    body = bytearray(original.memory.view[start:])
    if column:
        place = original.header.columns()[column]
        body[place.start : place.stop] = content
    changed = header(original.header)
    return replace(changed, fingerprint=_manifest_file.fingerprint(changed, body)).encoded() + bytes(body)


def u64(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(8, "little") for number in numbers)


@pytest.mark.parametrize(
    ("column", "content"),
    [
        ("key_ends", u64(7, 3, 16)),
        ("key_ends", u64(7, 2**63 + 1, 16)),
        ("key_ends", u64(7, 15, 15)),
        ("key_ends", u64(0, 15, 16)),
        ("sizes", u64(1, 2**63, 3)),
        ("bucket_of", b"\0\0\0\0\0\0\0\0\2\0\0\0"),
        ("bucket_of", b"\0\0\0\0\0\0\0\0\0\0\0\xff"),
    ],
)
def test_columns_that_make_no_sense_are_an_error(column: str, content: bytes) -> None:
    with pytest.raises(S3FormatError):
        opened(lying(SAMPLE, lambda header: header, column, content))


def test_a_key_that_is_no_text_is_an_error_of_its_row() -> None:
    rows = opened(lying(SAMPLE, lambda header: header, "keys", b"\xff" * 16))
    with pytest.raises(S3FormatError, match="the key of row 1"):
        rows.row(1)


@pytest.mark.parametrize(
    "changes",
    [
        {"samples": 2},
        {"samples": 2**60},
        {"samples": -1},
        {"samples": "3"},
        {"key_bytes": 2**50},
        {"buckets": ()},
        {"buckets": (1, 2)},
        {"buckets": None},
        {"etags": "sha"},
        {"etags": "text"},
        {"etag_bytes": 0},
        {"fingerprint": None},
    ],
)
def test_a_header_that_makes_no_sense_is_an_error(changes: dict[str, Any]) -> None:
    original = build(SAMPLE)
    start = len(original.header.encoded())
    text = json.dumps({"format": 1, **asdict(original.header), **changes}).encode()
    head = b"S3MANI1\n" + len(text).to_bytes(4, "little") + zlib.crc32(text).to_bytes(4, "little") + text
    with pytest.raises(S3FormatError):
        opened(head + bytes(-len(head) % 64) + bytes(original.memory.view[start:]))


def test_a_later_format_is_named() -> None:
    text = json.dumps({"format": 3}).encode()
    head = b"S3MANI1\n" + len(text).to_bytes(4, "little") + zlib.crc32(text).to_bytes(4, "little") + text
    with pytest.raises(S3FormatError, match="later release"):
        opened(head)


@pytest.mark.parametrize("data", [b"\0", b"not a manifest", b"S3MANI1\n", b"S3MANI1\n" + b"\xff" * 8])
def test_an_object_that_is_not_a_manifest_is_an_error(data: bytes) -> None:
    with pytest.raises(S3FormatError):
        opened(data)


def test_the_fingerprint_is_of_the_rows_alone() -> None:
    one, other = build(SAMPLE, ["s3://b/a/"], created=1), build(SAMPLE, [], created=2)
    assert one.header.fingerprint == other.header.fingerprint
    changes: list[dict[str, Any]] = [{"bucket": "c"}, {"key": "a/2.jpg"}, {"size": 12}, {"etag": '"x"'}]
    others = {build([SAMPLE[0]._replace(**change), *SAMPLE[1:]]).header.fingerprint for change in changes}
    assert len(others | {one.header.fingerprint}) == 5
    assert build(reversed(SAMPLE)).header.fingerprint != one.header.fingerprint


def describe(rows: Rows, results: Any) -> None:
    results.put((file_number(rows), [tuple(row) for row in rows]))


def file_number(rows: Rows) -> int:
    return os.fstat(rows.memory._descriptor).st_ino


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.usefixtures("s3_server")  # a fork server keeps the environment in which it began
def test_children_share_the_memory(method: str) -> None:
    rows = build(SAMPLE)
    context: Any = multiprocessing.get_context(method)
    results = context.SimpleQueue()
    child = context.Process(target=describe, args=(rows, results))
    child.start()
    assert results.get() == (file_number(rows), [tuple(row) for row in SAMPLE])
    child.join()


def test_a_pickle_holds_the_bytes() -> None:
    rows = build(SAMPLE)
    data = pickle.dumps(rows)
    del rows
    assert list(pickle.loads(data)) == SAMPLE
