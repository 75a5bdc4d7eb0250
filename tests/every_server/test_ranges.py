"""Servers that respond to ranges in their own ways: s3rver, and Google's, which decompresses."""

from __future__ import annotations

import gzip
import io
from typing import Any

import pytest

from s3torchconnector import S3ReaderConstructor
from s3torchconnector._errors import S3ProtocolError
from tests.reading.support import MIB, PART, client_of, content, put
from tests.servers.stand_ins import Gcs, S3rver

pytestmark = pytest.mark.usefixtures("s3_server")  # for its keys
TEXT = gzip.compress(b"a line of text\n" * 1_000_000 + content(0, PART + MIB))
READ = {
    "whole": lambda reader: reader.read(),
    "from the end": lambda reader: (reader.seek(-1000, io.SEEK_END), reader.read())[1],
    "in pieces": lambda reader: (reader.seek(MIB), reader.read(3 * MIB), reader.read(100))[1],
}


@pytest.mark.parametrize("how", READ)
@pytest.mark.parametrize("constructor", [S3ReaderConstructor.sequential(), S3ReaderConstructor.range_based()])
def test_objects_stored_compressed_are_read_as_they_are_stored(how: str, constructor: Any) -> None:
    memory = Gcs()
    with memory.serve() as server, client_of(server.endpoint) as client:
        for key in ("text.gz", "other.gz"):
            put(client, "bucket", key, TEXT)
            memory.compressed.add(key)
        for key in ("text.gz", "other.gz"):
            with client.get_object("bucket", key, reader_constructor=constructor) as reader:
                assert READ[how](reader) == READ[how](io.BytesIO(TEXT))
        assert client.head_object("bucket", "text.gz").size == len(TEXT)
        reads = [each for each in memory.requests if each.method == "GET"]
        assert {each.path for each in reads if "accept-encoding" not in each.headers} == {"/bucket/text.gz"}


def test_googles_endpoint_is_recognised_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Gcs()
    with memory.serve() as server:
        monkeypatch.setenv("HTTP_PROXY", server.endpoint)  # where plain HTTP to any host goes
        with client_of("http://storage.googleapis.com", checksum="off", force_path_style=True) as client:
            put(client, "bucket", "text.gz", TEXT)
            memory.compressed.add("text.gz")
            with client.get_object("bucket", "text.gz") as reader:
                assert reader.read() == TEXT
        reads = [each for each in memory.requests if each.method == "GET"]
        assert all(each.headers.get("accept-encoding") == "gzip" for each in reads)


def test_a_server_that_decompresses_all_the_same_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Gcs()
    with memory.serve() as server, client_of(server.endpoint) as client:
        put(client, "bucket", "text.gz", TEXT)
        memory.compressed.add("text.gz")
        read = memory._read

        def deaf(request: Any, key: str, owner: str) -> bytes:
            request.headers.pop("accept-encoding", None)
            return read(request, key, owner)

        monkeypatch.setattr(memory, "_read", deaf)
        with client.get_object("bucket", "text.gz") as reader, pytest.raises(S3ProtocolError, match="decompressed"):
            reader.read()


@pytest.mark.parametrize("constructor", [S3ReaderConstructor.sequential(), S3ReaderConstructor.range_based()])
def test_the_end_of_an_object_is_read_by_its_size(constructor: Any) -> None:
    memory = S3rver()
    with memory.serve() as server, client_of(server.endpoint) as client:
        data = content(0, 3 * MIB)
        for key in ("a", "b"):
            put(client, "bucket", key, data)
            with client.get_object("bucket", key, reader_constructor=constructor) as reader:
                assert reader.seek(-10, io.SEEK_END) == len(data) - 10
                assert reader.read() == data[-10:]


@pytest.mark.parametrize("constructor", [S3ReaderConstructor.sequential(), S3ReaderConstructor.range_based()])
def test_an_empty_object_is_empty(constructor: Any) -> None:
    memory = S3rver()
    with memory.serve() as server, client_of(server.endpoint) as client:
        put(client, "bucket", "empty", b"")
        with client.get_object("bucket", "empty", reader_constructor=constructor) as reader:
            assert reader.read() == b""
            assert reader.seek(0, io.SEEK_END) == 0
            assert reader.readinto(bytearray(10)) == 0
