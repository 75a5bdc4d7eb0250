"""Objects on every server: written, read, listed, copied and deleted."""

from __future__ import annotations

import io
import zipfile

import pytest

from s3torchconnector import S3ReaderConstructor, S3Writer
from s3torchconnector._errors import S3ChecksumError, S3NotFoundError, S3ObjectExistsError
from tests.every_server.conftest import Server
from tests.reading.support import MIB, PART, content, put

SIZES = (0, 1, PART, PART + MIB)
KEYS = ["a/1", "a/2=b.ckpt", "a/it's", "a/ö ä+%", "b/1", "b/c/2"]


@pytest.mark.parametrize("size", SIZES)
def test_what_was_written_is_read(server: Server, size: int) -> None:
    data = content(0, size)
    with server.client() as client:
        put(client, server.bucket, "k=1/ü 2.ckpt", data)
        assert client.head_object(server.bucket, "k=1/ü 2.ckpt").size == size
        with client.get_object(server.bucket, "k=1/ü 2.ckpt") as reader:
            if server.name == "RustFs" and size > PART:
                server.limit("in part", 'objects of several parts are an error, unless `checksum="off"`')
                with pytest.raises(S3ChecksumError):
                    reader.read()
            else:
                assert reader.read() == data


def test_a_growing_object_is_written_and_read_in_pieces(server: Server) -> None:
    with server.client() as client:
        with S3Writer(client.put_object(server.bucket, "log")) as writer:
            for number in range(3):
                writer.write(content(number * 4 * MIB, (number + 1) * 4 * MIB))
        with client.get_object(server.bucket, "log") as reader:
            assert reader.seek(-1000, io.SEEK_END) == 12 * MIB - 1000
            assert reader.read() == content(12 * MIB - 1000, 12 * MIB)
            reader.seek(5_000_000)
            assert reader.read(1_000_000) == content(5_000_000, 6_000_000)


def test_an_archive_is_read_from_its_end(server: Server) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("member", content(0, 5000))
    with server.client() as client:
        put(client, server.bucket, "archive.zip", file.getvalue())
        for constructor in (S3ReaderConstructor.sequential(), S3ReaderConstructor.range_based()):
            reader = client.get_object(server.bucket, "archive.zip", reader_constructor=constructor)
            with reader, zipfile.ZipFile(reader) as archive:  # type: ignore[call-overload]
                assert archive.read("member") == content(0, 5000)


def test_create_only_refuses_an_object_that_is_there(server: Server) -> None:
    with server.client() as client:
        put(client, server.bucket, "key", b"first")
        with pytest.raises(S3ObjectExistsError):
            client.put_object(server.bucket, "key", overwrite=False)
        with S3Writer(client.put_object(server.bucket, "new", overwrite=False)) as writer:
            writer.write(content(0, PART + MIB))
        assert client.head_object(server.bucket, "new").size == PART + MIB


def test_objects_are_listed_copied_and_deleted(server: Server) -> None:
    with server.client() as client:
        for key in KEYS:
            put(client, server.bucket, key, key.encode())
        assert sorted(key for page in client.list_all(server.bucket, "a/") for key in page.keys) == KEYS[:4]
        assert sorted(key for page in client.list_all(server.bucket, "a/i") for key in page.keys) == ["a/it's"]
        assert sorted(key for page in client.list_all(server.bucket, "b") for key in page.keys) == KEYS[4:]
        pages = list(client.list_objects(server.bucket, "b/", "/"))
        assert [prefix for page in pages for prefix in page.common_prefixes] == ["b/c/"]
        client.copy_object(server.bucket, "b/1", server.bucket, "copy")
        with client.get_object(server.bucket, "copy") as reader:
            assert reader.read() == b"b/1"
        client.delete_object(server.bucket, "b/1")
        with pytest.raises(S3NotFoundError):
            client.head_object(server.bucket, "b/1")


def test_an_aborted_upload_leaves_nothing(server: Server) -> None:
    with server.client() as client:
        stream = client.put_object(server.bucket, "epoch=1-step=2.ckpt")
        stream.write(content(0, PART + MIB))
        stream.abort()
        if server.name == "S3rver":
            server.limit("in part", "unfinished uploads can be aborted, but not listed")
        else:
            assert list(client.list_multipart_uploads(server.bucket)) == []
        with pytest.raises(S3NotFoundError):
            client.head_object(server.bucket, "epoch=1-step=2.ckpt")
