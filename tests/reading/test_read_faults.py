"""Errors in the middle of a read: those that pass are survived, others are raised, and reading can go on afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from s3torchconnector._errors import S3AccessDeniedError, S3ConnectionError, S3Exception, S3ThrottledError
from s3torchconnector._s3client import S3Client
from s3torchconnector._types import ObjectInfo
from s3torchconnector.s3reader import S3ReaderConstructor
from s3torchconnector.testing import S3Server
from tests.reading.support import MIB, PART, asked, client_of, content, open_object
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.proxy import CutBody, Drop, Fault, LoseResponse, RecordingProxy, Replace, StallBody, first

SIZE = 3 * PART + 100
FAULTS: dict[str, Fault] = {
    "cut": CutBody(after=1_000_000),
    "cut at once": CutBody(after=0),
    "reset": CutBody(after=70_000, reset=True),
    "503": Replace(s3_error(503, "SlowDown")),
    "500": Replace(s3_error(500, "InternalError")),
    "503 without a document": Replace(response(503)),
    "dropped": Drop(),
    "no response": LoseResponse(),
    "no Content-Range": Replace(response(206, b"some bytes")),
    "another range": Replace(response(206, b"xx", {"Content-Range": f"bytes 7-8/{SIZE}"})),
}
READS: dict[str, Callable[[Any], bytes]] = {
    "read()": lambda reader: reader.read(),
    "readinto": lambda reader: filled(reader, SIZE),
    "in pieces": lambda reader: b"".join(iter(lambda: reader.read(MIB), b"")),
    "prefetched": lambda reader: reader.prefetch() or reader.read(),
}


def filled(reader: Any, size: int) -> bytes:
    buffer = bytearray(size)
    return bytes(buffer[: reader.readinto(buffer)])


def begins_at(start: int) -> Callable[[ReceivedRequest], bool]:
    """Whether a request is for the part that begins there."""
    return lambda request: (asked(request.range, SIZE) or (None,))[0] == start


@pytest.fixture
def client(s3_server: S3Server, bucket: str, proxy: RecordingProxy) -> Iterator[S3Client]:
    (s3_server.folder / bucket / "key").write_bytes(content(0, SIZE))
    with client_of(proxy.endpoint, max_attempts=3) as client:
        yield client


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_that_pass_are_survived(
    client: S3Client, bucket: str, proxy: RecordingProxy, read: str, fault: str
) -> None:
    struck: list[ReceivedRequest] = []

    def strike(request: ReceivedRequest) -> Fault | None:
        """Each part suffers once, also the first request of all."""
        selected = asked(request.range, SIZE)
        if any(asked(other.range, SIZE) == selected for other in struck) or (struck and selected[0] % PART):
            return None
        struck.append(request)
        return FAULTS[fault]

    proxy.misbehave = strike
    with open_object(client, bucket) as reader:
        assert READS[read](reader) == content(0, SIZE)
    assert struck


def test_a_body_that_breaks_off_is_resumed_at_its_last_good_byte(
    client: S3Client, bucket: str, proxy: RecordingProxy
) -> None:
    proxy.misbehave = first(2, CutBody(after=100_000), when=begins_at(0))
    with open_object(client, bucket) as reader:
        assert reader.read(PART) == content(0, PART)
    starts = [asked(get.range, SIZE)[0] for get in proxy.of("GET")]
    assert starts == [0, 100_000]
    proxy.exchanges.clear()
    cuts = iter([500_000, 700_000])
    proxy.misbehave = lambda request: CutBody(after) if (after := next(cuts, None)) is not None else None
    with open_object(client, bucket) as reader:
        assert reader.read(PART) == content(0, PART)
    assert [asked(get.range, SIZE)[0] for get in proxy.of("GET")] == [0, 500_000, 1_200_000]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Replace(s3_error(403, "AccessDenied")), S3AccessDeniedError),
        (Replace(s3_error(503, "SlowDown")), S3ThrottledError),
        (Drop(), S3ConnectionError),
    ],
    ids=["403", "503", "dropped"],
)
@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("part", [0, 2])
def test_a_part_that_keeps_failing_fails_only_its_read(
    client: S3Client, bucket: str, proxy: RecordingProxy, fault: Fault, kind: type[S3Exception], read: str, part: int
) -> None:
    ill = begins_at(part * PART)
    proxy.misbehave = lambda request: fault if ill(request) else None
    with open_object(client, bucket) as reader:
        for _ in range(2):
            reader.seek(0)
            with pytest.raises(kind) as info:
                READS[read](reader)
            assert (info.value.bucket, info.value.key, info.value.operation) == (bucket, "key", "GetObject")
        proxy.misbehave = lambda request: None
        position = reader.tell()
        assert reader.read() == content(position, SIZE)
        reader.seek(0)
        assert reader.read() == content(0, SIZE)


def test_a_failed_block_that_is_not_used_raises_no_error(client: S3Client, bucket: str, proxy: RecordingProxy) -> None:
    """Until it is read."""
    proxy.misbehave = lambda request: None if begins_at(0)(request) else Replace(s3_error(403, "AccessDenied"))
    constructor = S3ReaderConstructor.sequential()
    with open_object(client, bucket, reader_constructor=constructor) as reader:
        for start in range(0, PART, MIB):
            assert reader.read(MIB) == content(start, start + MIB)
        with pytest.raises(S3AccessDeniedError):
            reader.read(1)
        assert reader.tell() == PART
        proxy.misbehave = lambda request: None
        assert reader.read() == content(PART, SIZE)


@pytest.mark.parametrize("size", [3 * PART, SIZE], ids=["fails on the calling thread", "fails on another"])
def test_nothing_writes_into_a_buffer_after_an_error(
    client: S3Client, bucket: str, proxy: RecordingProxy, size: int
) -> None:
    """One part stalls in the middle, another fails: ``readinto`` raises without waiting for the first."""
    release, stalled = threading.Event(), threading.Event()
    denied = Replace(s3_error(403, "AccessDenied"))

    def misbehave(request: ReceivedRequest) -> Fault | None:
        if begins_at(PART)(request):
            stalled.set()
            return StallBody(release, after=1000)
        if begins_at(2 * PART)(request):
            assert stalled.wait(30)
            return denied
        return None

    proxy.misbehave = misbehave
    buffer = bytearray(size)
    with open_object(client, bucket) as reader:
        with pytest.raises(S3AccessDeniedError):
            reader.readinto(buffer)
        assert not release.is_set()
        sentinel = b"\xaa" * size
        buffer[:] = sentinel
        release.set()
        client.close()  # joins all threads that could still be writing
        assert buffer == sentinel


def test_a_silent_server_is_abandoned(s3_server: S3Server, bucket: str, proxy: RecordingProxy) -> None:
    (s3_server.folder / bucket / "key").write_bytes(content(0, SIZE))
    release = threading.Event()
    proxy.misbehave = first(1, StallBody(release, after=1000))
    with client_of(proxy.endpoint, read_timeout=0.2) as client, open_object(client, bucket) as reader:
        assert reader.read() == content(0, SIZE)
    assert not release.is_set()


def test_a_reader_of_a_closed_client_does_not_hang(s3_server: S3Server, bucket: str) -> None:
    (s3_server.folder / bucket / "key").write_bytes(content(0, SIZE))
    client = client_of(s3_server.endpoint, throughput_target_gbps=0.1)
    with open_object(client, bucket) as reader:
        assert reader.read(10) == content(0, 10)
        client.close()
        reader.seek(PART + 5)
        for _ in range(6):  # more often than one object may have streams
            with pytest.raises(RuntimeError, match="the S3 client is closed"):
                reader.read(2 * PART)
    listed = ObjectInfo("key", "", 1000, 0)
    with client, open_object(client, bucket, object_info=listed) as reader:
        client.close()
        for _ in range(20):
            with pytest.raises(RuntimeError, match="the S3 client is closed"):
                reader.prefetch()
