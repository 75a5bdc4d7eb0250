"""Copies inside S3: of any size, with what the source has, and what its bucket demands."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import boto3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3torchconnector import S3Client, S3ClientConfig, S3CustomerKey, S3WriteOptions
from s3torchconnector._config import GIB, MAX_PART_SIZE, MIN_PART_SIZE
from s3torchconnector._errors import (
    S3AccessDeniedError,
    S3ChecksumError,
    S3Exception,
    S3NotFoundError,
    S3ObjectChangedError,
    S3ObjectExistsError,
    S3ServiceError,
    S3UploadAbortedError,
)
from s3torchconnector._transfer import ObjectCopy, Place, abort_together
from s3torchconnector._transfer.writing import _abandoned_uploads
from s3torchconnector._transfer.writing._copy import _LARGEST, _PART_SIZE
from s3torchconnector._transfer.writing._multipart import MAX_PARTS, copied_ranges
from s3torchconnector.dcp.s3_file_system import S3FileSystem
from tests.servers.http_messages import ReceivedRequest, s3_error
from tests.servers.moto_server import MotoServer
from tests.servers.proxy import Fault, RecordingProxy, Replace
from tests.servers.scripted import Reply, ScriptedServer, Send, Stall
from tests.servers.stand_ins import AwsLike, CustomerKeys
from tests.writing.support import PART, noise

SIZE = 2 * PART + 7
DATA = noise(SIZE)
OPTIONS = S3WriteOptions(
    content_type="application/x-tensors", metadata={"run": "7"}, tags={"team": "vision / language", "empty": ""}
)
TIB = 1024 * GIB

pytestmark = pytest.mark.usefixtures("s3_server")  # for its keys


class Small(AwsLike):
    """Copies less than the source in one request.

    Attributes:
        before: called with each request; what it returns, if anything, is the reply.
    """

    largest_copy = SIZE - 1

    def __init__(self) -> None:
        super().__init__()
        self.before: Callable[[ReceivedRequest], Reply | None] = lambda request: None

    def serve(self) -> ScriptedServer:
        return ScriptedServer(handler=self.reply)

    def reply(self, request: ReceivedRequest) -> Reply:
        special = self.before(request)
        return self.answer(request) if special is None else special

    def kinds(self) -> list[str]:
        return [kind_of(request) for request in self.requests]


def kind_of(request: ReceivedRequest) -> str:
    copies = "copy " if "x-amz-copy-source" in request.headers else ""
    return f"{copies}{request.method} {' '.join(sorted(request.query))}".strip()


def client_of(server: ScriptedServer, **settings: Any) -> S3Client:
    config = S3ClientConfig(part_size=PART, max_attempts=3, **settings)
    return S3Client("us-east-1", endpoint=server.endpoint, s3client_config=config)


def copy_in_parts(client: S3Client, **arguments: Any) -> None:
    """As ``S3Client.copy_object``, with the smallest parts."""
    ObjectCopy(client._runtime, Place("bucket", "old"), Place("bucket", "new"), part_size=PART, **arguments).carry_out()


@pytest.fixture
def memory() -> Small:
    return Small()


@pytest.fixture
def client(memory: Small) -> Iterator[S3Client]:
    """With an object to copy."""
    with memory.serve() as server, client_of(server) as client:
        with client.put_object("bucket", "old", options=OPTIONS) as writer:
            writer.write(DATA)
        memory.requests.clear()
        yield client


# -- the parts ---------------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.integers(1, 50 * 10**12), st.integers(MIN_PART_SIZE, GIB))
def test_parts_cover_the_object_and_are_as_s3_takes_them(size: int, part_size: int) -> None:
    ranges = copied_ranges(size, part_size)
    sizes = [last + 1 - first for first, last in ranges]
    assert ranges[0][0] == 0
    assert ranges[-1][1] == size - 1
    assert all(one[1] + 1 == other[0] for one, other in pairwise(ranges))
    assert len(set(sizes[:-1])) <= 1
    assert len(ranges) <= MAX_PARTS
    assert all(MIN_PART_SIZE <= each <= MAX_PART_SIZE for each in sizes[:-1])
    assert 0 < sizes[-1] <= MAX_PART_SIZE


@pytest.mark.parametrize("size", [_LARGEST + 1, 6 * GIB, TIB, 5 * TIB, 50 * 10**12])
def test_the_largest_objects_fit_the_parts_of_one_copy(size: int) -> None:
    ranges = copied_ranges(size, _PART_SIZE)
    sizes = {last + 1 - first for first, last in ranges[:-1]}
    assert len(ranges) == -(-size // max(sizes)) <= MAX_PARTS
    assert max(sizes) <= MAX_PART_SIZE
    assert min(sizes) >= _PART_SIZE
    assert _LARGEST == MAX_PART_SIZE == 5 * GIB


# -- by one request ----------------------------------------------------------------------------------------------------


def test_a_small_object_is_copied_by_one_request(memory: Small, client: S3Client) -> None:
    memory.largest_copy = SIZE
    client.copy_object("bucket", "old", "bucket", "new")
    assert memory.kinds() == ["copy PUT"]
    assert_copied(memory)


def test_metadata_of_the_call_replaces_that_of_the_source(memory: Small, client: S3Client) -> None:
    memory.largest_copy = SIZE
    client.copy_object("bucket", "old", "bucket", "new", options=S3WriteOptions(metadata={"other": "1"}))
    found = memory.objects["new"].metadata
    assert found["x-amz-meta-other"] == "1"
    assert "x-amz-meta-run" not in found
    assert found["content-type"] == "application/x-tensors"
    assert memory.kinds() == ["HEAD", "copy PUT"]


@pytest.mark.parametrize("largest", [SIZE, SIZE - 1])
def test_other_refusals_are_raised(memory: Small, client: S3Client, largest: int) -> None:
    memory.largest_copy = largest
    memory.before = lambda request: s3_error(400, "InvalidRequest", "it is illegal to copy an object to itself")
    with pytest.raises(S3ServiceError, match="illegal"):
        client.copy_object("bucket", "old", "bucket", "old")
    memory.before = lambda request: None
    with pytest.raises(S3NotFoundError, match="The object was not found"):
        client.copy_object("bucket", "none", "bucket", "new")
    with pytest.raises(S3NotFoundError, match="The object was not found"):
        client.copy_object("bucket", "none", "bucket", "new", overwrite=False)
    assert memory.kinds() == ["copy PUT", "HEAD", "HEAD"]


# -- in parts ----------------------------------------------------------------------------------------------------------


def assert_copied(memory: AwsLike, *, tags: bool = True) -> None:
    old, new = memory.objects["old"], memory.objects["new"]
    assert new.data == old.data
    marks = {name: value for name, value in new.metadata.items() if name.endswith("-write")}
    assert {**old.metadata, **marks} == new.metadata
    assert memory.tags["new"] == (memory.tags["old"] if tags else "")
    assert memory.uploads == {}


def test_a_large_object_is_copied_in_parts_with_its_properties(memory: Small, client: S3Client) -> None:
    copy_in_parts(client)
    assert_copied(memory)
    parts = ["copy PUT partNumber uploadId"] * 3
    kinds = memory.kinds()
    assert kinds == ["copy PUT", "HEAD", "GET tagging", "POST uploads", *parts, "POST uploadId"]
    assert {each.headers["x-amz-copy-source-if-match"] for each in memory.requests[4:7]} == {memory.objects["old"].etag}


def test_renaming_and_clients_copy_large_objects(memory: Small, client: S3Client) -> None:
    client.copy_object("bucket", "old", "bucket", "new")
    assert_copied(memory)
    data = memory.objects["old"].data
    S3FileSystem("us-east-1", client).rename("s3://bucket/old", "s3://bucket/renamed")
    assert memory.objects["renamed"].data == data
    assert "old" not in memory.objects


@pytest.mark.parametrize("checksum", ["required", "when_supported", "off"])
def test_the_copy_is_compared_with_the_checksum_of_the_source(memory: Small, client: S3Client, checksum: str) -> None:
    assert isinstance(client, S3Client)
    with memory.serve() as server, client_of(server, checksum=checksum) as other:
        copy_in_parts(other)
        [completed] = [each for each in memory.requests if kind_of(each) == "POST uploadId"]
        named = [name for name in completed.headers if name.startswith("x-amz-checksum-")]
        assert (b"<Checksum" in completed.body) == bool(named) == (checksum != "off")
        assert all(memory.objects["old"].checksums[name] == completed.headers[name] for name in named)
        memory.objects.pop("new")
        old = memory.objects["old"]
        memory.objects["old"] = replace(old, data=b"?" + old.data[1:])  # what the server reads of it
        if checksum == "off":
            return
        with pytest.raises(S3ChecksumError, match="the copy of s3://bucket/old has another checksum than s3://"):
            copy_in_parts(other)
        assert "new" not in memory.objects
        assert memory.uploads == {}


def test_a_source_without_a_checksum_is_copied(memory: Small, client: S3Client) -> None:
    old = memory.objects["old"]
    memory.objects["old"] = type(old)(old.data, old.metadata, old.time, "", old.etag, {})  # type: ignore[call-arg]
    copy_in_parts(client)
    assert_copied(memory)
    assert memory.objects["new"].checksums  # type: ignore[attr-defined]


def test_a_source_that_changes_is_noticed(memory: Small, client: S3Client) -> None:
    def overwrite(request: ReceivedRequest) -> None:
        if request.query.get("partNumber") == "1":
            memory._store(request, "old", noise(SIZE, 2), "2", {})

    memory.before = overwrite
    with pytest.raises(S3ObjectChangedError, match="s3://bucket/old was overwritten while it was being copied"):
        copy_in_parts(client)
    assert memory.objects.keys() == {"old"}
    assert memory.uploads == {}


def test_a_refused_part_ends_the_copy(memory: Small, client: S3Client) -> None:
    memory.before = lambda request: s3_error(403, "AccessDenied") if request.query.get("partNumber") == "2" else None
    with pytest.raises(S3AccessDeniedError, match="need s3:GetObject and s3:PutObject; and kms:GenerateDataKey"):
        copy_in_parts(client)
    assert memory.objects.keys() == {"old"}
    assert memory.uploads == {}


def test_a_late_error_of_a_part_is_tried_again(memory: Small, client: S3Client) -> None:
    failed: list[str] = []

    def fail(request: ReceivedRequest) -> Reply | None:
        if request.query.get("partNumber") == "2" and not failed:
            failed.append(request.target)
            return s3_error(503, "SlowDown").replace(b"503 Service Unavailable", b"200 OK")
        return None

    memory.before = fail
    copy_in_parts(client)
    assert len(failed) == 1
    assert_copied(memory)


def test_the_end_of_the_program_aborts_a_copy(memory: Small, client: S3Client) -> None:
    arrived, errors = threading.Event(), []

    def stall(request: ReceivedRequest) -> Reply | None:
        if request.query.get("partNumber") == "2":
            arrived.set()
            return [Stall(threading.Event()), Send(b"")]
        return None

    def copy() -> None:
        try:
            copy_in_parts(client)
        except S3Exception as error:
            errors.append(error)

    memory.before = stall
    thread = threading.Thread(target=copy)
    thread.start()
    assert arrived.wait(30)
    abort_together([each for each in _abandoned_uploads._open if "s3://bucket/new" in repr(each)])
    thread.join(30)
    assert [type(error) for error in errors] == [S3UploadAbortedError]
    assert memory.uploads == {}


@pytest.mark.parametrize("status", [403, 501, 404])
def test_tags_that_cannot_be_read_do_not_end_the_copy(
    memory: Small, client: S3Client, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    memory.before = lambda request: s3_error(status, "Refused") if "tagging" in request.query else None
    with caplog.at_level(logging.WARNING, "s3torchconnector"):
        copy_in_parts(client)
    assert_copied(memory, tags=False)
    assert ("s3://bucket/new has no tags, because those of s3://bucket/old cannot be read" in caplog.text) == (
        status == 403
    )


def test_the_options_of_a_copy_in_parts(memory: Small, client: S3Client) -> None:
    options = S3WriteOptions(encryption="aws:kms", kms_key_id="key", storage_class="STANDARD_IA", tags={"a": "b"})
    copy_in_parts(client, options=options)
    found = memory.objects["new"].metadata
    assert found["x-amz-server-side-encryption-aws-kms-key-id"] == "key"
    assert found["x-amz-storage-class"] == "STANDARD_IA"
    assert found["x-amz-meta-run"] == "7"
    assert memory.tags["new"] == "a=b"
    assert "GET tagging" not in memory.kinds()


def test_parts_are_copied_with_the_keys_of_both() -> None:
    memory = CustomerKeys()
    memory.largest_copy = SIZE - 1
    keys = [S3CustomerKey(bytes([number]) * 32) for number in range(2)]
    with (
        memory.serve() as server,
        client_of(server, customer_key=keys[0]) as old,
        client_of(server, customer_key=keys[1]) as new,
    ):
        with old.put_object("bucket", "old") as writer:
            writer.write(DATA)
        copy_in_parts(new, source_key=keys[0])
        with new.get_object("bucket", "new") as reader:
            assert reader.read() == DATA
    assert memory.keys["old"] != memory.keys["new"]


# -- what is there -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("largest", [SIZE, SIZE - 1])
def test_create_only_copies_to_a_free_key_alone(memory: Small, client: S3Client, largest: int) -> None:
    memory.largest_copy = largest
    copy_in_parts(client, overwrite=False)
    assert_copied(memory)
    with pytest.raises(S3ObjectExistsError):
        copy_in_parts(client, overwrite=False)
    new = memory.objects.pop("new")

    def appear(request: ReceivedRequest) -> None:
        if "if-none-match" in request.headers:
            memory.objects["new"] = new

    memory.before = appear
    with pytest.raises(S3ObjectExistsError):
        copy_in_parts(client, overwrite=False)
    assert memory.objects["new"] is new
    assert memory.uploads == {}


@pytest.mark.parametrize("largest", [SIZE, SIZE - 1])
def test_a_lost_response_to_a_create_only_copy_is_no_failure(memory: Small, client: S3Client, largest: int) -> None:
    memory.largest_copy = largest
    lost: list[str] = []

    def lose(request: ReceivedRequest) -> Reply | None:
        if "if-none-match" in request.headers and not lost:
            memory.answer(request)
            if "new" in memory.objects:
                lost.append(request.target)
                return ()
        return None

    memory.before = lose
    copy_in_parts(client, overwrite=False)
    assert len(lost) == 1
    assert_copied(memory)


def test_a_source_that_changes_before_a_create_only_copy_is_named(memory: Small, client: S3Client) -> None:
    memory.largest_copy = SIZE

    def overwrite(request: ReceivedRequest) -> None:
        if "x-amz-copy-source" in request.headers:
            memory._store(request, "old", noise(SIZE, 2), "2", {})

    memory.before = overwrite
    with pytest.raises(S3ObjectChangedError, match="s3://bucket/old was overwritten"):
        copy_in_parts(client, overwrite=False)
    assert memory.objects.keys() == {"old"}


# -- another server ----------------------------------------------------------------------------------------------------


def test_moto_copies_in_parts(moto_server: MotoServer, moto_bucket: str) -> None:
    def refuse(request: ReceivedRequest) -> Fault | None:
        is_whole = "x-amz-copy-source" in request.headers and "uploadId" not in request.query
        return Replace(s3_error(400, "EntityTooLarge")) if is_whole else None

    with RecordingProxy(moto_server.endpoint) as proxy:
        proxy.misbehave = refuse
        config = S3ClientConfig(part_size=PART)
        with S3Client("us-east-1", endpoint=proxy.endpoint, s3client_config=config) as client:
            with client.put_object(moto_bucket, "old", options=OPTIONS) as writer:
                writer.write(DATA)
            place = Place(moto_bucket, "new")
            ObjectCopy(client._runtime, Place(moto_bucket, "old"), place, part_size=PART).carry_out()
    s3 = boto3.client("s3", endpoint_url=moto_server.endpoint, region_name="us-east-1")
    assert s3.get_object(Bucket=moto_bucket, Key="new")["Body"].read() == DATA
    head = s3.head_object(Bucket=moto_bucket, Key="new")
    assert head["Metadata"] == {"run": "7"}
    assert head["ContentType"] == "application/x-tensors"
    found = s3.get_object_tagging(Bucket=moto_bucket, Key="new")["TagSet"]
    assert {each["Key"]: each["Value"] for each in found} == {"team": "vision / language", "empty": ""}
    assert not s3.list_multipart_uploads(Bucket=moto_bucket).get("Uploads")
    s3.close()
