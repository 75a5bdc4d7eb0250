"""``S3Reader`` as a file: what it says of itself, what it refuses, and what it does once closed."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from s3torchconnector import S3Reader
from s3torchconnector._errors import S3NotFoundError
from s3torchconnector._s3client import S3Client
from s3torchconnector.s3reader import S3ReaderConstructor
from s3torchconnector.testing import S3Server
from tests.reading.support import client_of, open_object

DATA = b"first line\nsecond line\n" + bytes(range(256)) * 4


@pytest.fixture
def client(s3_server: S3Server, bucket: str) -> Iterator[S3Client]:
    (s3_server.folder / bucket / "key").write_bytes(DATA)
    (s3_server.folder / bucket / "empty").touch()
    with client_of(s3_server.endpoint) as client:
        yield client


@pytest.fixture
def reader(client: S3Client, bucket: str) -> Iterator[Any]:
    with open_object(client, bucket) as reader:
        yield reader


def test_says_what_it_is(reader: Any, bucket: str) -> None:
    assert isinstance(reader, S3Reader)
    assert isinstance(reader, io.BufferedIOBase)
    assert (reader.bucket, reader.key) == (bucket, "key")
    assert (reader.readable(), reader.seekable(), reader.writable()) == (True, True, False)
    assert reader.tell() == 0
    assert f"{bucket}/key" in repr(reader)


@pytest.mark.parametrize("offset", [1.0, "1", None, b"1", [1]])
def test_seek_by_something_else_than_an_integer(reader: Any, offset: Any) -> None:
    with pytest.raises(TypeError):
        reader.seek(offset)
    with pytest.raises(TypeError):
        reader.seek(0, offset)
    assert reader.tell() == 0


def test_seek_by_whatever_counts_as_an_integer(reader: Any) -> None:
    assert reader.seek(np.int64(5)) == 5
    assert reader.read(np.uint8(3)) == DATA[5:8]


def test_seek_with_a_whence_that_is_none(reader: Any) -> None:
    for whence in (3, -1):
        with pytest.raises(ValueError, match="whence"):
            reader.seek(0, whence)


def test_seek_beyond_the_end_stays_at_the_end(reader: Any) -> None:
    assert reader.seek(len(DATA) + 1) == len(DATA)
    assert reader.read(1) == b""
    assert reader.seek(10**15, os.SEEK_CUR) == len(DATA)
    assert reader.seek(1, os.SEEK_END) == len(DATA)
    assert reader.tell() == len(DATA)


def test_seek_before_the_start_changes_nothing(reader: Any) -> None:
    reader.read(7)
    for offset, whence in ((-1, os.SEEK_SET), (-8, os.SEEK_CUR), (-len(DATA) - 1, os.SEEK_END)):
        with pytest.raises(ValueError, match="before the start"):
            reader.seek(offset, whence)
    assert reader.tell() == 7
    assert reader.read(4) == DATA[7:11]


@pytest.mark.parametrize("size", [1.0, "1", b"1"])
def test_read_of_something_else_than_an_integer(reader: Any, size: Any) -> None:
    for read in (reader.read, reader.read1):
        with pytest.raises(TypeError):
            read(size)


@pytest.mark.parametrize(
    "make",
    [
        lambda: bytes(10),
        lambda: memoryview(bytes(10)),
        lambda: memoryview(bytearray(10)).toreadonly(),
        lambda: memoryview(bytearray(20))[::2],
        lambda: np.zeros((4, 4))[:, 1],
        lambda: np.zeros((4, 5)).T,
        lambda: torch.zeros(4, 5).t().numpy(),
        lambda: "text",
        lambda: 10,
        lambda: None,
        lambda: [0] * 10,
    ],
    ids=[
        "bytes",
        "view of bytes",
        "read-only",
        "stride",
        "column",
        "array.T",
        "tensor.t()",
        "str",
        "int",
        "None",
        "list",
    ],
)
def test_readinto_refuses(reader: Any, make: Callable[[], Any]) -> None:
    with pytest.raises(TypeError):
        reader.readinto(make())
    assert reader.tell() == 0


@pytest.mark.parametrize(
    "make",
    [lambda: bytearray(), lambda: np.zeros((0, 4)), lambda: memoryview(bytearray(0))],
    ids=["bytearray", "array", "memoryview"],
)
def test_readinto_nothing(reader: Any, make: Callable[[], Any]) -> None:
    assert reader.readinto(make()) == 0


def test_readinto_memory_of_a_tensor(reader: Any) -> None:
    tensor = torch.zeros(16, 8, dtype=torch.uint8)
    assert reader.readinto(tensor.numpy()) == tensor.nbytes
    assert bytes(tensor.numpy()) == DATA[: tensor.nbytes]
    assert reader.readinto1(bytearray(4)) == 4
    assert reader.tell() == tensor.nbytes + 4


def test_an_empty_object(client: S3Client, bucket: str) -> None:
    with open_object(client, bucket, "empty") as reader:
        assert (reader.read(), reader.read(1), reader.read1(), reader.peek(1)) == (b"", b"", b"", b"")
        assert reader.readinto(bytearray(4)) == 0
        assert (reader.seek(0, os.SEEK_END), reader.seek(9), reader.tell()) == (0, 0, 0)
        assert list(reader) == []
    with open_object(client, bucket, "empty") as reader:
        assert reader.seek(0, os.SEEK_END) == 0
        assert reader.read() == b""


def test_lines(client: S3Client, bucket: str) -> None:
    for take in (list, lambda reader: reader.readlines(), lambda reader: list(iter(reader.readline, b""))):
        with open_object(client, bucket) as reader:
            assert take(reader) == io.BytesIO(DATA).readlines()


@pytest.mark.parametrize(
    "call",
    [
        lambda reader: reader.read(),
        lambda reader: reader.read(0),
        lambda reader: reader.read1(),
        lambda reader: reader.peek(),
        lambda reader: reader.readline(),
        lambda reader: reader.readinto(bytearray(1)),
        lambda reader: reader.readinto(bytearray()),
        lambda reader: reader.seek(0),
        lambda reader: reader.prefetch(),
        lambda reader: reader.readable(),
        lambda reader: reader.writable(),
        lambda reader: reader.seekable(),
        lambda reader: reader.__enter__(),
        lambda reader: next(reader),
    ],
)
@pytest.mark.parametrize("used", [False, True])
def test_a_closed_reader(reader: Any, call: Callable[[Any], Any], used: bool) -> None:
    if used:
        reader.read(3)
    reader.close()
    reader.close()
    assert reader.closed
    with pytest.raises(ValueError, match="closed"):
        call(reader)


def test_a_closed_reader_keeps_its_position(reader: Any) -> None:
    reader.read(3)
    reader.close()
    assert reader.tell() == 3
    assert repr(reader).endswith("/key at 3>")


@pytest.mark.parametrize("call", [lambda reader: reader.write(b""), lambda reader: reader.truncate(0)])
def test_writing(reader: Any, call: Callable[[Any], Any]) -> None:
    with pytest.raises(io.UnsupportedOperation):
        call(reader)


def test_a_bucket_without_a_name(client: S3Client) -> None:
    with pytest.raises(ValueError, match="Bucket should be specified"):
        client.get_object("", "key")


def test_a_negative_gap() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        S3ReaderConstructor.dcp_optimized(-1)


@pytest.mark.parametrize(
    "call",
    [
        lambda reader: reader.read(),
        lambda reader: reader.read(5),
        lambda reader: reader.readinto(bytearray(5)),
        lambda reader: reader.seek(5),
        lambda reader: reader.seek(0, os.SEEK_END),
        lambda reader: reader.peek(),
        lambda reader: reader.prefetch(),
    ],
)
def test_a_missing_object_is_an_error_each_time(client: S3Client, bucket: str, call: Callable[[Any], Any]) -> None:
    with open_object(client, bucket, "missing") as reader:
        for _ in range(2):
            with pytest.raises(S3NotFoundError) as info:
                call(reader)
            assert (info.value.bucket, info.value.key) == (bucket, "missing")
        assert reader.tell() == 0
