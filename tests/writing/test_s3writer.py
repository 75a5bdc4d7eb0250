"""``S3Writer``: the file protocol, and that the object is what was written, whatever it was written as."""

from __future__ import annotations

import array
import io
import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s3torchconnector import S3Writer
from s3torchconnector._config import KIB, MIB
from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer.engine._budget import BUFFER_SIZE
from tests.servers.proxy import RecordingProxy
from tests.writing.support import (
    PART,
    client_of,
    is_create,
    is_part,
    is_put,
    matching,
    noise,
    read_back,
    writer_of,
)


@pytest.fixture
def counted(proxy: RecordingProxy) -> Iterator[S3Client]:
    """A client whose requests are counted."""
    with client_of(proxy.endpoint) as client:
        yield client


# -- what can be written ------------------------------------------------------------------------------------------

_ARRAYS = {
    "floats": np.arange(12, dtype="f4").reshape(3, 4),
    "big-endian": np.arange(5, dtype=">i8"),
    "complex": np.array([1 + 2j, -3j], dtype="c8"),
    "half": np.arange(6, dtype="f2"),
    "booleans": np.array([True, False, True]),
    "records": np.array([(1, 2.5), (3, 4.5)], dtype=[("a", "i4"), ("b", "f8")]),
    "text": np.array(["ab", "c"]),
    "scalar": np.array(7.0),
    "empty": np.zeros((3, 0), dtype="i4"),
    "read-only": np.frombuffer(b"read-only", dtype="u1"),
}


@pytest.mark.parametrize(
    ("kind", "taken"),
    [
        (bytes, MIB),
        (memoryview, MIB),
        (bytearray, BUFFER_SIZE),
        (lambda data: memoryview(bytearray(data)).toreadonly(), BUFFER_SIZE),
    ],
    ids=["bytes", "a view of bytes", "bytearray", "a read-only view of a bytearray"],
)
def test_only_mutable_memory_is_copied(client: S3Client, bucket: str, kind: Any, taken: int) -> None:
    """Of ``bytes``, also in a view, the budget holds their own size; of anything else, a buffer for the copy."""
    data = noise(MIB)
    with writer_of(client, bucket) as writer:
        writer.write(kind(data))
        assert client._runtime().budget.taken == taken
    assert client._runtime().budget.taken == 0
    assert read_back(client, bucket) == data


@pytest.mark.parametrize("value", _ARRAYS.values(), ids=_ARRAYS)
def test_arrays_of_every_format(client: S3Client, bucket: str, value: np.ndarray[Any, Any]) -> None:
    with writer_of(client, bucket) as writer:
        assert writer.write(value) == value.nbytes
        assert writer.tell() == value.nbytes
    assert read_back(client, bucket) == value.tobytes()


def test_other_bytes_like_objects(client: S3Client, bucket: str) -> None:
    mapped = mmap.mmap(-1, 6)
    mapped[:] = b"mapped"
    values = [b"bytes", bytearray(b"array"), memoryview(b"view"), array.array("d", [1.5]), mapped]
    with writer_of(client, bucket) as writer:
        for value in values:
            assert writer.write(value) == memoryview(value).nbytes
        assert writer.write(torch.arange(3).numpy()) == 24
        writer.writelines([b"line 1\n", b"line 2\n"])
    expected = b"".join(map(bytes, values)) + torch.arange(3).numpy().tobytes() + b"line 1\nline 2\n"
    assert read_back(client, bucket) == expected


@pytest.mark.parametrize(
    "value", [np.arange(12).reshape(3, 4).T, np.arange(10)[::2], memoryview(b"abcdef")[::-1]],
    ids=["transposed", "strided", "reversed"],
)  # fmt: skip
def test_bytes_of_memory_with_gaps_are_stored_in_order(client: S3Client, bucket: str, value: Any) -> None:
    with writer_of(client, bucket) as writer:
        writer.write(b"<")
        assert writer.write(value) == memoryview(value).nbytes
        writer.write(b">")
    assert read_back(client, bucket) == b"<" + value.tobytes() + b">"


@pytest.mark.parametrize("value", ["text", 1, None, [1, 2]])
def test_objects_without_memory_are_refused(client: S3Client, bucket: str, value: Any) -> None:
    with writer_of(client, bucket) as writer:
        with pytest.raises(TypeError):
            writer.write(value)
        writer.write(b"good")
    assert read_back(client, bucket) == b"good"


@pytest.mark.parametrize("size", [1, 100 * KIB, 2 * PART + 7])
def test_memory_may_be_changed_as_soon_as_write_returns(client: S3Client, bucket: str, size: int) -> None:
    data = noise(size)
    buffer = np.frombuffer(data, dtype="u1").copy()
    with writer_of(client, bucket) as writer:
        writer.write(buffer)
        buffer[:] = 0
        writer.write(memoryview(buffer).toreadonly())  # a read-only view of memory that does change
        buffer[:] = 1
    assert read_back(client, bucket) == data + bytes(size)


# -- the file protocol --------------------------------------------------------------------------------------------


def test_is_a_file(client: S3Client, bucket: str) -> None:
    writer = writer_of(client, bucket)
    assert isinstance(writer, io.BufferedIOBase)
    assert (writer.readable(), writer.writable(), writer.seekable(), writer.closed) == (False, True, False, False)
    assert writer.tell() == 0
    writer.write(b"12345")
    writer.flush()
    assert writer.tell() == 5
    with pytest.raises(io.UnsupportedOperation):
        writer.read()
    with pytest.raises(io.UnsupportedOperation):
        writer.seek(0)
    writer.close()
    assert writer.closed


def test_flush_stores_nothing(counted: S3Client, bucket: str, proxy: RecordingProxy) -> None:
    with writer_of(counted, bucket) as writer:
        writer.write(b"some bytes")
        writer.flush()
        assert not proxy.exchanges
    assert len(proxy.exchanges) == 1


def test_a_closed_writer_cannot_be_entered(client: S3Client, bucket: str) -> None:
    writer = writer_of(client, bucket)
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.__enter__()


@pytest.mark.parametrize("end", ["close", "abort"])
def test_a_closed_writer_keeps_its_position(client: S3Client, bucket: str, end: str) -> None:
    writer = writer_of(client, bucket)
    writer.write(b"12345")
    getattr(writer, end)()
    assert (writer.tell(), writer.readable(), writer.writable()) == (5, False, False)


@pytest.mark.parametrize("data", [b"more", b"", bytearray(b"more")])
def test_write_after_close_is_a_value_error(counted: S3Client, bucket: str, data: bytes, proxy: RecordingProxy) -> None:
    writer = writer_of(counted, bucket)
    writer.write(b"all")
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.write(data)
    assert read_back(counted, bucket) == b"all"
    assert len(matching(proxy, is_put)) == 1


@pytest.mark.parametrize("size", [0, 10, PART + 1])
def test_closing_twice_is_one_upload(counted: S3Client, bucket: str, size: int, proxy: RecordingProxy) -> None:
    with writer_of(counted, bucket) as writer:
        writer.write(noise(size))
        writer.close()
        before = len(proxy.exchanges)
        writer.close()
        writer.stream.close()
    writer.close()
    assert len(proxy.exchanges) == before
    assert read_back(counted, bucket) == noise(size)


def test_an_empty_object(counted: S3Client, bucket: str, proxy: RecordingProxy) -> None:
    with writer_of(counted, bucket, "nothing written"):
        pass
    with writer_of(counted, bucket, "nothing in it") as writer:
        assert writer.write(b"") == writer.write(bytearray()) == 0
    assert len(matching(proxy, is_put)) == len(proxy.exchanges) == 2
    for key in ("nothing written", "nothing in it"):
        assert counted.head_object(bucket, key).size == 0
        assert read_back(counted, bucket, key) == b""


def test_a_writer_of_a_stream_of_the_programs_own() -> None:
    class Kept:
        def __init__(self) -> None:
            self.calls: list[object] = []

        def write(self, data: Any) -> None:
            self.calls.append(bytes(data))

        def close(self) -> None:
            self.calls.append("close")

    stream = Kept()
    writer = S3Writer(stream)  # type: ignore[arg-type]
    assert writer.stream is stream
    assert writer.write(memoryview(b"abc")) == 3
    writer.close()
    writer.close()
    assert stream.calls == [b"abc", "close"]

    torn = Kept()
    with pytest.raises(ZeroDivisionError), S3Writer(torn) as writer:  # type: ignore[arg-type]
        raise ZeroDivisionError
    assert writer.closed
    assert torn.calls == []


# -- the object is what was written -------------------------------------------------------------------------------

_KINDS = (bytes, bytearray, memoryview, lambda data: np.frombuffer(bytearray(data), dtype="u1"))
_SIZES = st.one_of(
    st.integers(0, 64),
    st.sampled_from([64 * KIB - 1, 64 * KIB, PART - 1, PART, PART + 1, 2 * PART]),
    st.integers(0, 6 * MIB),
)
_WRITES = st.lists(st.tuples(_SIZES, st.sampled_from(_KINDS)), max_size=6).filter(
    lambda writes: sum(size for size, _ in writes) <= 16 * MIB
)
_SOURCE = noise(16 * MIB)


@settings(max_examples=40)
@given(writes=_WRITES, offsets=st.lists(st.integers(0, 2 * MIB), min_size=6, max_size=6))
def test_any_sequence_of_writes(
    counted: S3Client, bucket: str, proxy: RecordingProxy, writes: list[tuple[int, Any]], offsets: list[int]
) -> None:
    proxy.exchanges.clear()
    pieces = [_SOURCE[offset : offset + size] for offset, (size, _) in zip(offsets, writes, strict=False)]
    with writer_of(counted, bucket) as writer:
        for piece, (_, kind) in zip(pieces, writes, strict=True):
            assert writer.write(kind(piece)) == len(piece)
        assert writer.tell() == sum(map(len, pieces))
    expected = b"".join(pieces)
    assert (bucket_file := read_back(counted, bucket)) == expected, f"{len(bucket_file)} of {len(expected)} bytes"
    one_part = len(expected) <= PART
    assert len(matching(proxy, is_put)) == (1 if one_part else 0)
    assert len(matching(proxy, is_create)) == (0 if one_part else 1)
    sizes = [each.request_bytes for each in sorted(matching(proxy, is_part), key=lambda e: int(e.query["partNumber"]))]
    assert sizes == (
        [] if one_part else [PART] * (len(expected) // PART) + [len(expected) % PART] * (len(expected) % PART > 0)
    )
    assert counted._runtime().budget.taken == 0
