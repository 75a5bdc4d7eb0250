"""Servers that forbid some requests: HEAD while GET is allowed, and LIST, without which a missing key is 403."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from s3torchconnector import S3Checkpoint, S3Client, S3ClientConfig, S3Manifest, S3MapDataset
from s3torchconnector.errors import (
    S3AccessDeniedError,
    S3ChecksumError,
    S3NotFoundError,
    S3ObjectExistsError,
    S3ServiceError,
)
from s3torchconnector.lightning._fsspec import S3PathFileSystem
from s3torchconnector.testing import S3Server
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.proxy import Hook, RecordingProxy, Replace
from tests.wire.support import open_client

MIB = 1 << 20
DENIED = s3_error(403, "AccessDenied", "Access Denied")
CONFIG = S3ClientConfig(max_attempts=2, part_size=5 * MIB)


def forbid(*refused: Callable[[ReceivedRequest], bool], status: int = 403) -> Hook:
    def judge(request: ReceivedRequest) -> Replace | None:
        if not any(each(request) for each in refused):
            return None
        # The response to HEAD has no body.
        return Replace(f"HTTP/1.1 {status} Forbidden\r\n\r\n".encode() if request.method == "HEAD" else DENIED)

    return judge


def is_head(request: ReceivedRequest) -> bool:
    return request.method == "HEAD"


def is_list(request: ReceivedRequest) -> bool:
    return "list-type" in request.query


@pytest.fixture
def client(proxy: RecordingProxy) -> Iterator[S3Client]:
    with open_client(proxy.endpoint, CONFIG) as client:
        yield client


# -- HEAD --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [403, 405, 501])
@pytest.mark.parametrize("size", [0, 1, 5])
def test_a_one_byte_read_replaces_head(
    client: S3Client, proxy: RecordingProxy, s3_server: S3Server, bucket: str, status: int, size: int
) -> None:
    (s3_server.folder / bucket / "k").write_bytes(bytes(size))
    expected = client.head_object(bucket, "k")
    assert expected.size == size
    proxy.misbehave = forbid(is_head, status=status)
    del proxy.exchanges[:]
    assert [client.head_object(bucket, "k") for _ in range(3)] == [expected] * 3
    assert len(proxy.of("HEAD")) == 1
    assert len(proxy.of("GET")) == (3 if size else 6)


def test_it_is_logged_once_and_remembered_for_the_bucket(
    client: S3Client, proxy: RecordingProxy, s3_server: S3Server, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "s3torchconnector")
    for key in ("a", "b"):
        (s3_server.folder / bucket / key).write_bytes(b"12345")
    proxy.misbehave = forbid(is_head)
    assert [client.head_object(bucket, key).size for key in ("a", "b")] == [5, 5]
    assert len(proxy.of("HEAD")) == 1
    assert caplog.text.count("forbids HEAD requests") == 1


def test_a_missing_key_is_missing_although_head_is_forbidden(
    client: S3Client, proxy: RecordingProxy, bucket: str
) -> None:
    proxy.misbehave = forbid(is_head)
    for _ in range(2):
        with pytest.raises(S3NotFoundError):
            client.head_object(bucket, "missing")
    assert len(proxy.of("HEAD")) == 1


def test_if_get_is_also_forbidden_the_error_is_the_one_of_head(
    client: S3Client, proxy: RecordingProxy, bucket: str
) -> None:
    proxy.misbehave = forbid(is_head, lambda request: request.method == "GET")
    for _ in range(2):
        with pytest.raises(S3AccessDeniedError, match=r"HeadObject.*403.*the object may not exist") as caught:
            client.head_object(bucket, "k")
    assert caught.value.operation == "HeadObject"
    assert len(proxy.of("HEAD")) == 2  # nothing is remembered: another object may be allowed


def test_an_error_that_names_its_cause_is_raised_at_once(client: S3Client, proxy: RecordingProxy, bucket: str) -> None:
    proxy.misbehave = lambda request: Replace(response(400)) if request.method == "HEAD" else None
    with pytest.raises(S3ServiceError, match="HTTP 400"):
        client.head_object(bucket, "k")
    assert proxy.of("GET") == []


def test_all_ways_of_reading_work_without_head(
    proxy: RecordingProxy, s3_server: S3Server, bucket: str, tmp_path: Path
) -> None:
    data = random.Random(0).randbytes(17 * MIB)
    (s3_server.folder / bucket / "large").write_bytes(data)
    (s3_server.folder / bucket / "small").write_bytes(b"12345")
    proxy.misbehave = forbid(is_head)
    where = {"region": "us-east-1", "endpoint": proxy.endpoint, "s3client_config": CONFIG}
    checkpoint = S3Checkpoint("us-east-1", proxy.endpoint, CONFIG)
    assert checkpoint.reader(f"s3://{bucket}/large").read() == data
    with checkpoint.reader(f"s3://{bucket}/large") as reader:
        assert reader.seek(-5, os.SEEK_END) == len(data) - 5
        assert reader.read() == data[-5:]
    dataset = S3MapDataset.from_objects([f"s3://{bucket}/small"], **where)  # type: ignore[arg-type]
    assert dataset[0].read() == b"12345"
    manifest = S3Manifest.from_objects([f"s3://{bucket}/large"], **where)  # type: ignore[arg-type]
    assert S3MapDataset.from_manifest(manifest, **where)[0].read() == data  # type: ignore[arg-type]
    manifest.save(f"s3://{bucket}/manifest")
    assert len(S3Manifest.load(f"s3://{bucket}/manifest", **where)) == 1  # type: ignore[arg-type]
    with pytest.raises(S3ObjectExistsError):
        checkpoint.writer(f"s3://{bucket}/small", overwrite=False)
    with S3Client("us-east-1", endpoint=proxy.endpoint, s3client_config=CONFIG) as client:
        files = S3PathFileSystem(skip_instance_cache=True)
        files.latest = client
        assert files.cat(f"s3://{bucket}/small") == b"12345"


def test_a_checksum_that_only_head_has_is_not_requested_again(
    proxy: RecordingProxy, s3_server: S3Server, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = bytes(12 * MIB)
    for i in range(3):
        (s3_server.folder / bucket / f"{i}").write_bytes(data)
    proxy.misbehave = forbid(is_head)
    with open_client(proxy.endpoint, CONFIG) as client:
        assert all(client.get_object(bucket, f"{i}").read() == data for i in range(3))
    assert len(proxy.of("HEAD")) == 1
    assert caplog.text.count("was read and not verified: the request for its checksum failed") == 1
    with open_client(proxy.endpoint, S3ClientConfig(part_size=5 * MIB, checksum="required")) as client:
        for _ in range(2):
            with pytest.raises(S3ChecksumError, match=r"forbids HEAD|HTTP 403"):
                client.get_object(bucket, "0").read()


# -- LIST --------------------------------------------------------------------------------------------------------------


def test_a_forbidden_list_says_what_works_without_it(client: S3Client, proxy: RecordingProxy, bucket: str) -> None:
    proxy.misbehave = forbid(is_list)
    with pytest.raises(S3AccessDeniedError, match=r"s3:ListBucket on the bucket itself.*by name: from_objects"):
        list(client.list_objects(bucket, "images/"))


def test_a_missing_key_without_list_may_be_missing(client: S3Client, proxy: RecordingProxy, bucket: str) -> None:
    proxy.misbehave = lambda request: Replace(DENIED) if request.method == "GET" else None
    told = r"need s3:GetObject on this object\. If they have that, the object may not exist.*s3:ListBucket"
    with pytest.raises(S3AccessDeniedError, match=told):
        client.get_object(bucket, "missing").read()
