"""A server that keeps a wrong checksum of an object: the error says so, and how to read it all the same."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from s3torchconnector import S3ReaderConstructor
from s3torchconnector._errors import S3ChecksumError
from tests.reading.support import MIB, PART, client_of, content, put
from tests.servers.stand_ins import RustFs

pytestmark = pytest.mark.usefixtures("s3_server")  # for its keys
DATA = content(0, PART + MIB)


@pytest.fixture
def endpoint() -> Iterator[str]:
    memory = RustFs()
    with memory.serve() as server:
        with client_of(server.endpoint) as client:
            put(client, "bucket", "key", DATA)
        yield server.endpoint


@pytest.mark.parametrize("part_size", [PART, 8 * MIB])  # in two requests, and in one
def test_bytes_that_arrive_twice_the_same_are_reported(endpoint: str, part_size: int) -> None:
    with (
        client_of(endpoint, part_size=part_size, max_attempts=2) as client,
        client.get_object("bucket", "key") as reader,
        pytest.raises(S3ChecksumError, match=r'twice the same.* wrong checksum .* checksum="off" in S3ClientConfig'),
    ):
        reader.read()


def test_a_stream_that_is_read_again_raises(endpoint: str) -> None:
    sequential = S3ReaderConstructor.sequential()
    with (
        client_of(endpoint) as client,
        client.get_object("bucket", "key", reader_constructor=sequential) as reader,
    ):
        with pytest.raises(S3ChecksumError, match="over another network"):
            list(iter(partial(reader.read, MIB), b""))
        reader.seek(0)
        with pytest.raises(S3ChecksumError, match='checksum="off"'):
            list(iter(partial(reader.read, MIB), b""))


def test_off_reads_it(endpoint: str) -> None:
    with client_of(endpoint, checksum="off") as client, client.get_object("bucket", "key") as reader:
        assert reader.read() == DATA
