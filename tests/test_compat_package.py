"""The package ``s3torchconnectorclient``: the names programs import from it."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

import s3torchconnector
import s3torchconnectorclient
from s3torchconnector import S3Writer
from s3torchconnector._errors import S3NotFoundError
from s3torchconnector._s3client import S3Client
from s3torchconnector.testing import S3Server
from s3torchconnectorclient import _mountpoint_s3_client as client_types


def test_names() -> None:
    assert s3torchconnectorclient.__all__ == sorted(s3torchconnectorclient.__all__)
    assert s3torchconnectorclient.S3Exception is s3torchconnector.S3Exception
    assert s3torchconnectorclient.__version__ == s3torchconnector.__version__
    assert client_types.__all__ == sorted(client_types.__all__)
    assert {
        "GetObjectStream", "HeadObjectResult", "ListObjectResult", "ListObjectStream", "ObjectInfo", "PutObjectStream",
        "RestoreStatus", "S3Exception",
    } <= set(client_types.__all__)  # fmt: skip
    for name in client_types.__all__:
        assert hasattr(client_types, name)


@pytest.mark.parametrize("args", [(), ("a",), ("a", "b"), ("", 3)])
def test_an_exception_keeps_its_arguments(args: tuple[Any, ...]) -> None:
    for error in (s3torchconnectorclient.S3Exception(*args), S3NotFoundError(*args, key="k")):
        for same in (error, pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert (type(same), same.args, same.key) == (type(error), args, error.key)
            assert str(same) == str(Exception(*args))


def test_the_level_of_traces() -> None:
    assert s3torchconnectorclient.LOG_TRACE == 5


_VALUES: list[tuple[type, list[str], list[object]]] = [
    (client_types.RestoreStatus, ["in_progress", "expiry"], [True, 123]),
    (
        client_types.ObjectInfo,
        ["key", "etag", "size", "last_modified", "storage_class", "restore_status"],
        ["key", '"etag"', 5, 1700000000, "STANDARD", None],
    ),
    (
        client_types.HeadObjectResult,
        ["etag", "size", "last_modified", "storage_class", "restore_status"],
        ['"etag"', 5, 1700000000, None, client_types.RestoreStatus(False, None)],
    ),
    (client_types.ListObjectResult, ["object_info", "common_prefixes"], [[], ["prefix/"]]),
]


@pytest.mark.parametrize(("kind", "fields", "values"), _VALUES, ids=[kind.__name__ for kind, _, _ in _VALUES])
def test_values(kind: Any, fields: list[str], values: list[object]) -> None:
    value = kind(*values)
    assert [getattr(value, field) for field in fields] == values
    assert kind(**dict(zip(fields, values, strict=True))) == value
    assert pickle.loads(pickle.dumps(value)) == value


def test_the_types_are_what_a_client_gives(s3_server: S3Server, bucket: str) -> None:
    with S3Client(s3_server.region, endpoint=s3_server.endpoint) as client:
        put = client.put_object(bucket, "a/key")
        assert isinstance(put, S3Writer)
        assert isinstance(put.stream, client_types.PutObjectStream)
        put.write(b"some bytes")
        put.close()
        listing = client.list_objects(bucket)
        assert isinstance(listing, client_types.ListObjectStream)
        (page,) = list(listing)
        assert isinstance(page, client_types.ListObjectResult)
        (info,) = page.object_info
        assert isinstance(info, client_types.ObjectInfo)
        assert (info.key, info.size) == ("a/key", 10)
        head = client.head_object(bucket, "a/key")
        assert isinstance(head, client_types.HeadObjectResult)
        assert (head.size, head.etag.strip('"'), head.last_modified) == (10, info.etag.strip('"'), info.last_modified)
        streams: list[Any] = []

        def keep_stream(bucket: str, key: str, get_object_info: Any, get_stream: Any) -> Any:
            streams.append(get_stream(2, 7))
            assert get_object_info() == head
            return s3torchconnector.S3Reader(bucket, key, get_object_info, lambda: [b"another ", b"source"])

        with client.get_object(bucket, "a/key", reader_constructor=keep_stream) as reader:
            assert reader.read() == b"another source"
        (stream,) = streams
        assert isinstance(stream, client_types.GetObjectStream)
        assert stream.tell() == 2
        assert b"".join(stream) == b"me by"
        assert stream.tell() == 7


def test_a_writer_over_the_stream(s3_server: S3Server, bucket: str) -> None:
    with S3Client(s3_server.region, endpoint=s3_server.endpoint) as client:
        stream = client.put_object(bucket, "key")
        with S3Writer(stream) as writer:
            writer.write(b"some bytes")
            assert writer.stream is stream.stream
        with client.get_object(bucket, "key") as reader:
            assert reader.read() == b"some bytes"


def test_errors_are_caught_by_the_old_name(s3_server: S3Server, bucket: str) -> None:
    with S3Client(s3_server.region, endpoint=s3_server.endpoint) as client:
        with pytest.raises(s3torchconnectorclient.S3Exception, match=r"^Service error: The key does not exist"):
            client.get_object(bucket, "missing").read()
        with pytest.raises(client_types.S3Exception, match=r"^Service error: The object was not found"):
            client.head_object(bucket, "missing")
        with pytest.raises(s3torchconnectorclient.S3Exception, match=r"^Service error: The bucket does not exist"):
            next(iter(client.list_objects("no-such-bucket")))
