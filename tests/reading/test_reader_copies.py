"""Readers that pickle and copy: to another process or not, each copy fetches for itself, of the same version."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from s3torchconnector import S3Reader, S3ReaderConstructor
from s3torchconnector._errors import S3ObjectChangedError
from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer import ObjectReader
from s3torchconnector.testing import S3Server
from tests.reading.support import client_of, content, open_object, put

SIZE = 300_000
DATA = content(0, SIZE)

Copy = Callable[[Any], Any]
COPIES: dict[str, Copy] = {
    "pickle": lambda reader: pickle.loads(pickle.dumps(reader)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}


@pytest.fixture
def client(s3_server: S3Server, bucket: str) -> Iterator[S3Client]:
    with client_of(s3_server.endpoint) as client:
        put(client, bucket, "key", DATA)
        yield client


@pytest.fixture(params=COPIES.values(), ids=list(COPIES))
def copied(request: pytest.FixtureRequest) -> Copy:
    copy_of: Copy = request.param
    return copy_of


def test_a_reader_that_read_nothing(client: S3Client, bucket: str, copied: Copy) -> None:
    reader = open_object(client, bucket)
    other = copied(reader)
    assert type(other) is type(reader)
    assert (other.bucket, other.key, other.tell(), other.closed) == (bucket, "key", 0, False)
    assert other.read() == reader.read() == DATA


def test_a_prefetched_reader(client: S3Client, bucket: str, copied: Copy) -> None:
    reader = open_object(client, bucket)
    reader.prefetch()
    other = copied(reader)
    reader.close()
    assert other.read() == DATA


def test_a_reader_in_the_middle_goes_on_from_there_on_its_own(client: S3Client, bucket: str, copied: Copy) -> None:
    reader = open_object(client, bucket)
    assert reader.read(1000) == DATA[:1000]
    other = copied(reader)
    assert other.tell() == 1000
    assert other.read(500) == DATA[1000:1500]
    assert reader.tell() == 1000
    other.close()
    assert not reader.closed
    assert reader.read() == DATA[1000:]


def test_a_copy_reads_the_version_that_its_original_began(client: S3Client, bucket: str, copied: Copy) -> None:
    reader = open_object(client, bucket)
    reader.read(1000)
    put(client, bucket, "key", DATA[::-1])
    with pytest.raises(S3ObjectChangedError):
        copied(reader).read()


def test_a_closed_reader_stays_closed(client: S3Client, bucket: str, copied: Copy) -> None:
    reader = open_object(client, bucket)
    reader.close()
    other = copied(reader)
    assert other.closed
    with pytest.raises(ValueError, match="closed"):
        other.read()


@pytest.mark.parametrize(
    "constructor",
    [S3ReaderConstructor.sequential(), S3ReaderConstructor.range_based(10), S3ReaderConstructor.dcp_optimized()],
)
def test_any_way_of_reading(client: S3Client, bucket: str, copied: Copy, constructor: Any) -> None:
    assert copied(open_object(client, bucket, reader_constructor=constructor)).read() == DATA


class OwnReader(S3Reader):
    """Keeps what it was made of, as programs' own readers do."""

    def __init__(self, bucket: str, key: str, get_object_info: Any, get_stream: Any) -> None:
        super().__init__(bucket, key, get_object_info, get_stream)
        self.get_object_info = get_object_info
        self.get_stream = get_stream


def test_a_reader_of_ones_own(client: S3Client, bucket: str, copied: Copy) -> None:
    other = copied(open_object(client, bucket, reader_constructor=OwnReader))
    assert other.read() == DATA
    assert other.get_object_info().size == SIZE
    assert b"".join(other.get_stream(start=5)) == DATA[5:]


def _stream() -> Iterator[bytes]:
    yield b"some "
    yield b"bytes"


def _no_info() -> Any:
    return None


def test_a_reader_of_a_stream(copied: Copy) -> None:
    reader: Any = S3Reader("bucket", "key", _no_info, _stream)
    assert reader.read(3) == b"som"
    other = copied(reader)
    assert (other.read(), reader.read()) == (b"e bytes", b"e bytes")


@pytest.mark.filterwarnings("error")
def test_a_half_made_reader_ends_quietly() -> None:
    def open_runtime() -> Any:
        raise RuntimeError("no threads")

    with pytest.raises(RuntimeError, match="no threads"):
        ObjectReader(open_runtime, None, None)  # type: ignore[arg-type]
    ObjectReader.__new__(ObjectReader)
    gc.collect()
