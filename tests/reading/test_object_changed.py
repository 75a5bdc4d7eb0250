"""The object is overwritten while it is read: an error says so, and bytes of two versions never mix."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from s3torchconnector._errors import S3ObjectChangedError, S3ProtocolError, S3ServiceError
from s3torchconnector._s3client import S3Client
from s3torchconnector._types import ObjectInfo
from s3torchconnector.s3reader import S3ReaderConstructor
from s3torchconnector.testing import S3Server
from tests.reading.support import MIB, PART, VirtualObject, client_of, content, open_object, put
from tests.servers.http_messages import ReceivedRequest, response
from tests.servers.moto_server import MotoServer
from tests.servers.scripted import ScriptedServer

POLICIES = {
    "default": S3ReaderConstructor.default(),
    "sequential": S3ReaderConstructor.sequential(),
    "range_based": S3ReaderConstructor.range_based(1000),
    "dcp_optimized": S3ReaderConstructor.dcp_optimized(),
}
SIZE = 3 * PART
FEW_STREAMS = {"throughput_target_gbps": 0.1}  # 4, so that reading ahead ends
LARGE = 12 * PART  # more than is read ahead


@pytest.mark.parametrize("policy", ["default", "range_based", "dcp_optimized"])  # none has read ahead yet
def test_overwritten_between_two_reads(moto_server: MotoServer, moto_bucket: str, policy: str) -> None:
    with client_of(moto_server.endpoint) as client:
        put(client, moto_bucket, "key", b"1" * SIZE)
        with open_object(client, moto_bucket, reader_constructor=POLICIES[policy]) as reader:
            assert reader.read(1000) == b"1" * 1000
            put(client, moto_bucket, "key", b"2" * SIZE)
            for _ in range(2):
                reader.seek(-1000, os.SEEK_END)
                with pytest.raises(S3ObjectChangedError) as info:
                    reader.read(1000)
        assert (info.value.bucket, info.value.key) == (moto_bucket, "key")
        assert isinstance(info.value, S3ServiceError)
        assert str(pickle.loads(pickle.dumps(info.value))) == str(info.value)
        with open_object(client, moto_bucket) as reader:
            assert reader.read() == b"2" * SIZE


@pytest.fixture
def virtual() -> VirtualObject:
    return VirtualObject(SIZE)


@pytest.fixture
def client(s3_server: S3Server, virtual: VirtualObject) -> Iterator[S3Client]:
    with ScriptedServer(handler=virtual) as server, client_of(server.endpoint, **FEW_STREAMS) as client:
        yield client


CHANGES: dict[str, dict[str, Any]] = {
    "content": {"etag": '"two"', "shift": 1},
    "longer": {"etag": '"two"', "size": LARGE + PART},
    "shorter": {"etag": '"two"', "size": LARGE - 1},
    "much shorter": {"etag": '"two"', "size": 10},
    "emptied": {"etag": '"two"', "size": 0},
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("honours_if_match", [True, False])
def test_a_later_response_is_of_another_version(
    virtual: VirtualObject, client: S3Client, policy: str, change: str, honours_if_match: bool
) -> None:
    virtual.honours_if_match = honours_if_match
    virtual.size = LARGE
    with open_object(client, "bucket", reader_constructor=POLICIES[policy]) as reader:
        assert reader.read(10) == content(0, 10)
        for name, value in CHANGES[change].items():
            setattr(virtual, name, value)
        reader.seek(LARGE - PART + 1)
        with pytest.raises(S3ObjectChangedError):
            reader.read(2 * MIB)
        assert reader.tell() == LARGE - PART + 1
        if policy == "default":  # what came before the change and is still here can be had
            reader.seek(2)
            assert reader.read(5) == content(2, 7)


def test_the_same_version_of_another_size_is_a_wrong_response(virtual: VirtualObject, client: S3Client) -> None:
    """Asked for again, and not taken for a change: the ETag says that there was none."""
    with open_object(client, "bucket", reader_constructor=POLICIES["range_based"]) as reader:
        assert reader.read(10) == content(0, 10)
        answered: list[str] = []

        def lie_once(request: ReceivedRequest) -> None:
            answered.append(request.target)
            virtual.size = SIZE + (len(answered) == 1)

        virtual.before = lie_once
        reader.seek(PART)
        assert reader.read(1000) == content(PART, PART + 1000)
        virtual.before, virtual.size = lambda request: None, SIZE + 1
        reader.seek(2 * PART)
        with pytest.raises(S3ProtocolError, match=f"different sizes of s3://bucket/key, {SIZE} and {SIZE + 1} bytes"):
            reader.read(1000)


@pytest.mark.parametrize("told", [f"bytes 1-1000/{SIZE + 9}", f"bytes 0-998/{SIZE + 9}"], ids=["shifted", "shorter"])
def test_a_wrong_first_response_does_not_pin_the_version(virtual: VirtualObject, client: S3Client, told: str) -> None:
    lies = [response(206, bytes(1000 if told[6] == "1" else 999), {"Content-Range": told, "ETag": '"lie"'})]
    virtual.before = lambda request: lies.pop() if lies else None
    with open_object(client, "bucket", reader_constructor=POLICIES["range_based"]) as reader:
        assert reader.read(1000) == content(0, 1000)
        assert reader.seek(0, os.SEEK_END) == SIZE
    assert not lies


@pytest.mark.parametrize(
    "read",
    [
        lambda reader: reader.read(),
        lambda reader: reader.read(SIZE),
        lambda reader: reader.readinto(bytearray(SIZE)),
        lambda reader: [reader.read(MIB) for _ in range(15)],
    ],
    ids=["read()", "read(size)", "readinto", "pieces"],
)
def test_changed_in_the_middle_of_a_read(virtual: VirtualObject, client: S3Client, read: Callable[[Any], Any]) -> None:
    """After the first part, whichever comes first, every response is of another version with the same size."""
    virtual.honours_if_match = False
    answered: list[str] = []

    def overwrite(request: Any) -> None:
        if request.method == "GET":  # a HEAD asks for a checksum, and says nothing of what is read
            answered.append(request.target)
        if len(answered) > 1:
            virtual.etag, virtual.shift = '"two"', 1

    virtual.before = overwrite
    with open_object(client, "bucket") as reader, pytest.raises(S3ObjectChangedError):
        read(reader)


def test_every_request_after_the_first_names_the_version(virtual: VirtualObject, client: S3Client) -> None:
    seen: list[str | None] = []
    virtual.before = lambda request: seen.append(request.headers.get("if-match"))
    with open_object(client, "bucket") as reader:
        while reader.read(700_000):
            pass
    assert len(seen) > 2
    assert seen == [None] + ['"one"'] * (len(seen) - 1)


@pytest.mark.parametrize("policy", POLICIES)
def test_an_object_with_a_weak_etag_is_read(virtual: VirtualObject, client: S3Client, policy: str) -> None:
    """If-Match compares strongly, so that a weak one never matches: RFC 9110, section 13.1.1."""
    virtual.etag = 'W/"one"'
    with open_object(client, "bucket", reader_constructor=POLICIES[policy]) as reader:
        assert reader.read(10) == content(0, 10)
        reader.seek(2 * PART)
        assert reader.read(PART) == content(2 * PART, 3 * PART)
    assert len(virtual.served) > 1
    assert not any("if-match" in request.headers for request in virtual.requests)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_change_of_a_weak_etag_is_noticed(virtual: VirtualObject, client: S3Client, policy: str) -> None:
    virtual.etag, virtual.size = 'W/"one"', LARGE
    with open_object(client, "bucket", reader_constructor=POLICIES[policy]) as reader:
        assert reader.read(10) == content(0, 10)
        virtual.etag, virtual.shift = 'W/"two"', 1
        reader.seek(LARGE - PART + 1)
        with pytest.raises(S3ObjectChangedError):
            reader.read(2 * MIB)


def test_an_object_of_another_size_than_listed(virtual: VirtualObject, client: S3Client) -> None:
    """An old listing costs nothing as long as nothing depends on it."""
    info = ObjectInfo("key", '"zero"', SIZE - 5, 0)
    with open_object(client, "bucket", object_info=info) as reader:
        assert reader.read(10) == content(0, 10)
        assert reader.seek(0, os.SEEK_END) == SIZE
    with open_object(client, "bucket", object_info=info) as reader:
        assert reader.seek(0, os.SEEK_END) == SIZE - 5
        reader.seek(0)
        with pytest.raises(S3ObjectChangedError, match=rf"was listed with {SIZE - 5} bytes .*; list its prefix again"):
            reader.read(10)


@pytest.mark.parametrize("size", [0, 1000, PART])
def test_reading_after_the_end_of_an_object_of_unknown_size(
    client: S3Client, virtual: VirtualObject, size: int
) -> None:
    """The server tells it with 416, as RFC 9110, 15.5.17 recommends: of what was asked for, nothing is there."""
    virtual.size = size
    buffer = bytearray(12 * MIB)
    assert open_object(client, "bucket").readinto(buffer) == size
    assert buffer[:size] == content(0, size)
    stream = open_object(client, "bucket", reader_constructor=lambda get_stream, **_: get_stream)
    assert b"".join(stream(start=2 * PART)) == b""
