"""``S3Reader`` made by programs themselves, over any iterable of ``bytes``; and custom reader constructors."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3torchconnector import S3MapDataset, S3Reader
from s3torchconnector.s3reader import S3ReaderConstructor
from s3torchconnector.testing import S3Server
from s3torchconnectorclient._mountpoint_s3_client import GetObjectStream, HeadObjectResult, ObjectInfo
from tests.reading.support import MIB, PART, client_of, content, open_object


def over(pieces: list[bytes], *, described: bool = False) -> Any:
    """A reader of these pieces, whose object may be described beside them."""
    info = HeadObjectResult('"etag"', sum(map(len, pieces)), 0, None, None) if described else None
    return S3Reader("bucket", "key", lambda: info, lambda: iter(pieces))  # type: ignore[arg-type, return-value]


def clamped(oracle: io.BytesIO, offset: int, whence: int) -> int:
    size = len(oracle.getvalue())
    base = {os.SEEK_SET: 0, os.SEEK_CUR: oracle.tell(), os.SEEK_END: size}[whence]
    return min(base + offset, size)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(-1, 40)),
        st.tuples(st.just("readinto"), st.integers(0, 40)),
        st.tuples(st.just("readline"), st.integers(-1, 40)),
        st.tuples(st.just("read1"), st.integers(-1, 40)),
        st.tuples(st.sampled_from([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END]), st.integers(-60, 60)),
    ),
    max_size=12,
)


@given(
    pieces=st.lists(st.binary(max_size=20) | st.lists(st.sampled_from([b"a\n", b"\n"])).map(b"".join), max_size=6),
    described=st.booleans(),
    steps=STEPS,
)
@settings(max_examples=300)
def test_any_sequence_of_calls(pieces: list[bytes], described: bool, steps: list[tuple[Any, int]]) -> None:
    reader, oracle = over(pieces, described=described), io.BytesIO(b"".join(pieces))
    for call, count in steps:
        if call == "readinto":
            buffer, expected = bytearray(count), bytearray(count)
            assert reader.readinto(buffer) == oracle.readinto(expected)
            assert buffer == expected
        elif call == "read1":
            got = reader.read1(count)
            assert got == oracle.read(len(got))
            assert bool(got) == (count != 0 and oracle.tell() - len(got) < len(oracle.getvalue()))
        elif isinstance(call, str):
            assert getattr(reader, call)(count) == getattr(oracle, call)(count)
        elif (target := clamped(oracle, count, call)) < 0:
            with pytest.raises(ValueError, match="before the start"):
                reader.seek(count, call)
        else:
            assert reader.seek(count, call) == oracle.seek(target)
        assert reader.tell() == oracle.tell()


def test_takes_no_more_of_the_stream_than_it_needs() -> None:
    taken = []

    def stream() -> Iterator[bytes]:
        for number in range(10):
            taken.append(number)
            yield bytes([number]) * 100

    reader: Any = S3Reader("bucket", "key", lambda: None, stream)  # type: ignore[arg-type, return-value]
    assert not taken
    reader.prefetch()
    assert reader.read(150) == bytes(100) + b"\1" * 50
    assert taken == [0, 1]
    assert reader.seek(0) == 0
    assert reader.read(200) == bytes(100) + b"\1" * 100
    assert taken == [0, 1]
    assert len(reader.read()) == 800


def test_a_stream_that_breaks_is_not_taken_for_a_short_one() -> None:
    outages = [ConnectionResetError("first"), ConnectionResetError("second")]

    def stream() -> Iterator[bytes]:
        yield b"some "
        if outages:
            raise outages.pop(0)
        yield b"bytes"

    reader: Any = S3Reader("bucket", "key", lambda: None, stream)  # type: ignore[arg-type, return-value]
    for outage in ("first", "second"):
        with pytest.raises(ConnectionResetError, match=outage):
            reader.read()
    assert reader.read() == b"some bytes"


def test_closed() -> None:
    reader = over([b"some bytes"])
    reader.read(3)
    reader.close()
    with pytest.raises(ValueError, match="closed"):
        reader.read()


def test_a_bucket_without_a_name() -> None:
    with pytest.raises(ValueError, match="Bucket should be specified"):
        S3Reader("", "key", lambda: None, lambda: iter([]))  # type: ignore[arg-type, return-value]


def collecting(bucket: str, key: str, get_object_info: Any, get_stream: Any) -> Any:
    """A custom constructor, as programs have them: the four arguments in its own reader."""
    return CustomReader(bucket, key, get_object_info, get_stream)


class CustomReader(S3Reader):
    """Adds a method; ``get_stream`` is used as documented."""

    def __init__(self, bucket: str, key: str, get_object_info: Any, get_stream: Any) -> None:
        super().__init__(bucket, key, get_object_info, get_stream)
        self.get_object_info = get_object_info
        self.get_stream = get_stream


@pytest.fixture
def endpoint(s3_server: S3Server, bucket: str) -> str:
    (s3_server.folder / bucket / "key").write_bytes(content(0, 3 * PART + 9))
    return s3_server.endpoint


def test_a_custom_constructor_is_given_the_documented_arguments(endpoint: str, bucket: str) -> None:
    size = 3 * PART + 9
    with client_of(endpoint) as client:
        reader = open_object(client, bucket, reader_constructor=collecting)
        assert isinstance(reader, CustomReader)
        assert (reader.bucket, reader.key) == (bucket, "key")
        assert reader.read() == content(0, size)
        assert reader.get_object_info().size == size
        listed = ObjectInfo("key", '"etag"', 5, 6, None, None)
        given_info = open_object(client, bucket, object_info=listed, reader_constructor=collecting)
        assert given_info.get_object_info() == listed


@pytest.mark.parametrize("start", [None, 0, 1, PART - 1, PART, 3 * PART + 9, 4 * PART])
@pytest.mark.parametrize("end", [None, 1, PART, PART + 1, 2 * PART + 7, 3 * PART + 9, 5 * PART])
def test_a_stream_of_a_range(endpoint: str, bucket: str, start: int | None, end: int | None) -> None:
    size = 3 * PART + 9
    with client_of(endpoint) as client:
        reader = open_object(client, bucket, reader_constructor=collecting)
        stream = reader.get_stream(start=start, end=end)
        assert isinstance(stream, GetObjectStream)
        assert stream.tell() == (start or 0)
        expected = content(start or 0, min(size, size if end is None else end))
        received = b""
        for piece in stream:
            assert type(piece) is bytes
            assert 0 < len(piece) <= MIB
            received += piece
            assert stream.tell() == (start or 0) + len(received)
        assert received == expected
        assert next(stream, b"nothing") == b"nothing"


def test_a_custom_constructor_may_return_any_reader(endpoint: str, bucket: str) -> None:
    def plain(bucket: str, key: str, get_object_info: Any, get_stream: Any) -> Any:
        return S3Reader(bucket, key, get_object_info, lambda: iter(get_stream(10, 20)))

    with client_of(endpoint) as client, open_object(client, bucket, reader_constructor=plain) as reader:
        assert reader.read(100) == content(10, 20)


def test_a_constructor_for_a_dataset(endpoint: str, bucket: str) -> None:
    for constructor in (collecting, S3ReaderConstructor.range_based(100), S3ReaderConstructor.default()):
        dataset = S3MapDataset.from_objects(
            f"s3://{bucket}/key",
            region="us-east-1",
            endpoint=endpoint,
            transform=lambda reader: (type(reader), reader.read(10)),
            reader_constructor=constructor,
        )
        kind, data = dataset[0]
        assert issubclass(kind, CustomReader if constructor is collecting else S3Reader)
        assert data == content(0, 10)
