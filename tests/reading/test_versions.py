"""Buckets that keep versions: a version that is named, and one that is replaced or deleted while it is read."""

from __future__ import annotations

import copy
import http.client
import pickle
import random
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch

from s3torchconnector import S3Checkpoint, S3Client, S3ClientConfig, S3Credentials, S3MapDataset, S3ReaderConstructor
from s3torchconnector._transfer import ObjectCopy, Place
from s3torchconnector.errors import S3AccessDeniedError, S3NotFoundError, S3ObjectChangedError
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.moto_server import MotoServer
from tests.servers.proxy import RecordingProxy, Replace
from tests.servers.scripted import ScriptedServer
from tests.wire.support import open_client

MIB = 1 << 20
OLD, NEW = random.Random(1).randbytes(12 * MIB), random.Random(2).randbytes(12 * MIB)
KEYS = S3Credentials("AKIDEXAMPLE", "secret")
PLAIN = S3ClientConfig(max_attempts=2, part_size=5 * MIB, checksum="off", credentials=KEYS)
KEEPING = replace(PLAIN, keep_version=True)


class VersionedBucket:
    """A bucket of moto, and functions that change it without the client under test."""

    def __init__(self, server: MotoServer, name: str) -> None:
        self.name = name
        self.endpoint = server.endpoint
        self.versioning("Enabled")

    def versioning(self, status: str) -> None:
        body = f"<VersioningConfiguration><Status>{status}</Status></VersioningConfiguration>"
        self._request("PUT", f"/{self.name}?versioning", body.encode())

    def put(self, key: str, data: bytes) -> str | None:
        """The id of the version that is stored."""
        return self._request("PUT", f"/{self.name}/{key}", data)

    def delete(self, key: str) -> str | None:
        """The id of the delete marker."""
        return self._request("DELETE", f"/{self.name}/{key}")

    def _request(self, method: str, path: str, body: bytes = b"") -> str | None:
        with closing(http.client.HTTPConnection(urlsplit(self.endpoint).netloc, timeout=60)) as connection:
            signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/us-east-1/s3/aws4_request"}
            connection.request(method, path, body, signed)
            answer = connection.getresponse()
            assert answer.status < 300, answer.read()
            return answer.headers["x-amz-version-id"]


@pytest.fixture
def versioned(moto_server: MotoServer, moto_bucket: str) -> VersionedBucket:
    return VersionedBucket(moto_server, moto_bucket)


@pytest.fixture
def moto_proxy(moto_server: MotoServer) -> Iterator[RecordingProxy]:
    with RecordingProxy(moto_server.endpoint) as proxy:
        yield proxy


# -- a version that is named -------------------------------------------------------------------------------------------


def test_any_version_can_be_read(versioned: VersionedBucket) -> None:
    first, second = versioned.put("k", b"first"), versioned.put("k", b"the second")
    checkpoint = S3Checkpoint("us-east-1", versioned.endpoint, PLAIN)
    uri = f"s3://{versioned.name}/k"
    assert checkpoint.reader(uri).read() == b"the second"
    for version_id, data in ((first, b"first"), (second, b"the second")):
        with checkpoint.reader(uri, version_id=version_id) as reader:
            assert reader.seek(0, 2) == len(data)
            assert reader.seek(-3, 2) == len(data) - 3
            assert reader.read() == data[-3:]
            copies = [copy.copy(reader), pickle.loads(pickle.dumps(reader))]
        for each in copies:
            each.seek(0)
            assert each.read() == data
        custom = S3Checkpoint("us-east-1", versioned.endpoint, PLAIN, S3ReaderConstructor.range_based())
        assert custom.reader(uri, version_id=version_id).read() == data
    with open_client(versioned.endpoint, PLAIN) as client:
        assert client.head_object(versioned.name, "k").size == len(b"the second")
        assert client.head_object(versioned.name, "k", first).size == len(b"first")
        client.copy_object(versioned.name, "k", versioned.name, "restored", version_id=first)
        assert client.get_object(versioned.name, "restored").read() == b"first"


def test_a_large_version_is_read_in_parts(versioned: VersionedBucket, moto_proxy: RecordingProxy) -> None:
    version_id = versioned.put("k", OLD)
    versioned.put("k", NEW)
    with open_client(moto_proxy.endpoint, replace(PLAIN, checksum="when_supported")) as client:
        assert client.get_object(versioned.name, "k", version_id=version_id).read() == OLD
    assert len(moto_proxy.exchanges) >= 3
    assert {each.query.get("versionId") for each in moto_proxy.exchanges} == {version_id}


def test_a_safetensors_file_of_a_version(versioned: VersionedBucket) -> None:
    checkpoint = S3Checkpoint("us-east-1", versioned.endpoint, PLAIN)
    uri = f"s3://{versioned.name}/model.safetensors"
    checkpoint.save_safetensors({"a": torch.ones(3)}, uri)
    with open_client(versioned.endpoint, PLAIN) as client:
        content = client.get_object(versioned.name, "model.safetensors").read()
    version_id = versioned.put("model.safetensors", content)
    checkpoint.save_safetensors({"a": torch.zeros(3)}, uri)
    assert checkpoint.load_safetensors(uri, version_id=version_id)["a"].sum() == 3
    assert checkpoint.load_safetensors(uri)["a"].sum() == 0


def test_a_missing_version_is_not_found(versioned: VersionedBucket) -> None:
    versioned.put("k", b"first")
    with (
        open_client(versioned.endpoint, PLAIN) as client,
        pytest.raises(S3NotFoundError, match=r"The version does not exist: GetObject.*NoSuchVersion"),
    ):
        client.get_object(versioned.name, "k", version_id="0123456789abcdef").read()


def test_a_version_needs_a_separate_permission(versioned: VersionedBucket, moto_proxy: RecordingProxy) -> None:
    version_id = versioned.put("k", b"first")
    moto_proxy.misbehave = lambda request: (
        Replace(s3_error(403, "AccessDenied")) if "versionId" in request.query else None
    )
    with open_client(moto_proxy.endpoint, PLAIN) as client:
        with pytest.raises(S3AccessDeniedError, match="need s3:GetObjectVersion"):
            client.get_object(versioned.name, "k", version_id=version_id).read()
        assert client.get_object(versioned.name, "k").read() == b"first"


# -- delete markers ----------------------------------------------------------------------------------------------------


def test_older_versions_of_a_deleted_object_can_be_read(versioned: VersionedBucket) -> None:
    version_id = versioned.put("k", b"first")
    versioned.delete("k")
    with open_client(versioned.endpoint, PLAIN) as client:
        with pytest.raises(S3NotFoundError):
            client.get_object(versioned.name, "k").read()
        assert client.get_object(versioned.name, "k", version_id=version_id).read() == b"first"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("version_id", "status", "told"), [
    (None, 404, r"it was deleted; its latest version, m, is a delete marker\. Its older versions can still be read"),
    ("m", 405, "This version is a delete marker, which has no content"),
])  # fmt: skip
def test_a_delete_marker_is_an_error_that_says_so(method: str, version_id: str | None, status: int, told: str) -> None:
    """As AWS responds: https://docs.aws.amazon.com/AmazonS3/latest/userguide/DeleteMarker.html"""

    def answer(request: ReceivedRequest) -> bytes:
        code = "NoSuchKey" if status == 404 else "MethodNotAllowed"
        body = b"" if request.method == "HEAD" else s3_error(status, code).partition(b"\r\n\r\n")[2]
        return response(status, body, {"x-amz-delete-marker": "true", "x-amz-version-id": "m"})

    with ScriptedServer(handler=answer) as server, open_client(server.endpoint, PLAIN) as client:
        with client.get_object("b", "k", version_id=version_id) as reader, pytest.raises(S3NotFoundError, match=told):
            reader.read() if method == "GET" else client.head_object("b", "k", version_id)
        assert len(server.requests) == 1


# -- a version that is replaced while it is read -----------------------------------------------------------------------


class ChangedMeanwhile:
    """A reader of an object whose beginning was read before the object was replaced or deleted."""

    def __init__(self, client: S3Client, versioned: VersionedBucket, change: str) -> None:
        versioned.put("k", OLD)
        self.reader = client.get_object(
            versioned.name, "k", reader_constructor=S3ReaderConstructor.range_based(buffer_size=64 * 1024)
        )
        assert self.reader.read(100) == OLD[:100]
        if change == "replaced":
            versioned.put("k", NEW)
        else:
            versioned.delete("k")


@pytest.mark.parametrize("change", ["replaced", "deleted"])
def test_reading_goes_on_with_the_version_that_was_begun(
    versioned: VersionedBucket, moto_proxy: RecordingProxy, change: str
) -> None:
    with open_client(moto_proxy.endpoint, KEEPING) as client:
        reader = ChangedMeanwhile(client, versioned, change).reader
        again = pickle.loads(pickle.dumps(reader))
        assert reader.read() == OLD[100:]
        assert reader.seek(50) == 50
        assert reader.read(10) == OLD[50:60]
        assert again.read() == OLD[100:]
        if change == "replaced":
            assert client.get_object(versioned.name, "k").read() == NEW
    asked = [each.query.get("versionId") for each in moto_proxy.exchanges]
    assert asked[0] is None
    assert len(set(asked)) == 2


@pytest.mark.parametrize("change", ["replaced", "deleted"])
def test_by_default_it_is_an_error_that_names_the_setting(versioned: VersionedBucket, change: str) -> None:
    error = S3ObjectChangedError if change == "replaced" else S3NotFoundError
    with open_client(versioned.endpoint, PLAIN) as client:
        reader = ChangedMeanwhile(client, versioned, change).reader
        with pytest.raises(error, match="keep_version=True in S3ClientConfig"):
            reader.read()


@pytest.mark.parametrize("status", [None, "Suspended"])
def test_without_older_versions_it_stays_an_error(
    moto_server: MotoServer, moto_bucket: str, status: str | None
) -> None:
    versioned = VersionedBucket(moto_server, moto_bucket) if status else VersionedBucket.__new__(VersionedBucket)
    if status:
        versioned.versioning(status)
    else:
        versioned.name, versioned.endpoint = moto_bucket, moto_server.endpoint
    with open_client(versioned.endpoint, KEEPING) as client:
        reader = ChangedMeanwhile(client, versioned, "replaced").reader
        with pytest.raises(S3ObjectChangedError):
            reader.read()


def test_servers_that_ignore_conditions_are_asked_for_the_version() -> None:
    asked: list[str | None] = []

    def answer(request: ReceivedRequest) -> bytes:
        asked.append(request.query.get("versionId"))
        is_old = asked[-1] == "v1" or len(asked) == 1
        data, etag, version = (OLD, '"old"', "v1") if is_old else (NEW, '"new"', "v2")
        first, _, last = (request.range or "").removeprefix("bytes=").partition("-")
        stop = min(int(last) + 1, len(data))
        span = {"Content-Range": f"bytes {first}-{stop - 1}/{len(data)}", "ETag": etag, "x-amz-version-id": version}
        return response(206, data[int(first) : stop], span)

    with ScriptedServer(handler=answer) as server, open_client(server.endpoint, KEEPING) as client:
        construct = S3ReaderConstructor.range_based(buffer_size=64 * 1024)
        reader = client.get_object("b", "k", reader_constructor=construct)
        assert reader.read(100) + reader.read() == OLD
    assert asked[0] is None
    assert "v1" in asked


def test_many_readers_go_on_at_the_same_time(versioned: VersionedBucket) -> None:
    with open_client(versioned.endpoint, KEEPING) as client:
        readers = [ChangedMeanwhile(client, versioned, "replaced").reader for _ in range(4)]
        results: list[bytes] = []
        threads = [threading.Thread(target=lambda reader=reader: results.append(reader.read())) for reader in readers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == [OLD[100:]] * 4


def test_tensors_of_one_file_are_of_one_version(versioned: VersionedBucket, moto_proxy: RecordingProxy) -> None:
    uri = f"s3://{versioned.name}/model.safetensors"
    checkpoint = S3Checkpoint("us-east-1", moto_proxy.endpoint, KEEPING)
    checkpoint.save_safetensors({"a": torch.ones(2 * MIB), "b": torch.ones(2 * MIB)}, uri)
    with open_client(versioned.endpoint, PLAIN) as client:
        content = client.get_object(versioned.name, "model.safetensors").read()
    versioned.put("model.safetensors", content)
    left = threading.Semaphore(1)

    def overwrite(request: ReceivedRequest) -> None:
        if request.method == "GET" and "if-match" in request.headers and left.acquire(blocking=False):
            versioned.put("model.safetensors", b"something else")

    moto_proxy.misbehave = overwrite
    loaded = checkpoint.load_safetensors(uri)
    assert all(tensor.eq(1).all() for tensor in loaded.values())
    assert not left.acquire(blocking=False)


def test_a_batch_of_a_dataset_keeps_versions_too(versioned: VersionedBucket, tmp_path: Path) -> None:
    versioned.put("k", OLD)
    dataset = S3MapDataset.from_objects(
        [f"s3://{versioned.name}/k"], region="us-east-1", endpoint=versioned.endpoint, s3client_config=KEEPING,
        reader_constructor=S3ReaderConstructor.range_based(buffer_size=64 * 1024),
    )  # fmt: skip
    reader = dataset[0]
    assert reader.read(100) == OLD[:100]
    versioned.put("k", NEW)
    assert reader.read() == OLD[100:]


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_version_is_copied_in_one_request_or_in_parts(
    versioned: VersionedBucket, moto_proxy: RecordingProxy, overwrite: bool
) -> None:
    version_id = versioned.put("k", OLD)
    versioned.put("k", NEW)
    with open_client(moto_proxy.endpoint, PLAIN) as client:
        client.copy_object(versioned.name, "k", versioned.name, "at once", overwrite=overwrite, version_id=version_id)
        source = Place(versioned.name, "k", version_id)
        copy_in_parts = ObjectCopy(client._runtime, source, Place(versioned.name, "in parts"), part_size=5 * MIB)
        copy_in_parts._copy_parts(copy_in_parts._look())
        assert client.get_object(versioned.name, "at once").read() == OLD
        assert client.get_object(versioned.name, "in parts").read() == OLD
    copied = [source for each in moto_proxy.of("PUT") if (source := each.request.headers.get("x-amz-copy-source"))]
    assert set(copied) == {f"/{versioned.name}/k?versionId={version_id}"}
    assert len(copied) == 4
