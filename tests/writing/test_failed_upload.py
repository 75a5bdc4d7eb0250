"""Uploads on a bad day: the object appears whole, or the old one stays and the error says why.

The faults are the recording proxy's, between the client and a real server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from s3torchconnector import S3ClientConfig, S3Exception
from s3torchconnector._errors import (
    S3AccessDeniedError,
    S3ConnectionError,
    S3NotFoundError,
    S3UploadAbortedError,
)
from s3torchconnector._s3client import S3Client
from s3torchconnector.testing import S3Server
from tests.servers.http_messages import s3_error
from tests.servers.proxy import Drop, Fault, LoseResponse, RecordingProxy, Replace, first
from tests.writing.support import (
    PART,
    SMALL_PARTS,
    assert_no_upload_remains,
    client_of,
    is_complete,
    is_create,
    is_part,
    is_put,
    matching,
    noise,
    read_back,
    save,
    uploads_of,
    writer_of,
)

OLD = b"the old object"
SLOW_DOWN = Replace(s3_error(503, "SlowDown"))
DENIED = Replace(s3_error(403, "AccessDenied"))
LARGE = 3 * PART + 11


@pytest.fixture
def client(proxy: RecordingProxy, bucket: str) -> Iterator[S3Client]:
    """A client of the proxy, in front of a bucket with an old object at ``key``."""
    with client_of(proxy.endpoint) as client:
        with writer_of(client, bucket) as writer:
            writer.write(OLD)
        proxy.exchanges.clear()
        yield client


# -- faults that pass ---------------------------------------------------------------------------------------------

_EVERY = {"PUT": is_put, "create": is_create, "part": is_part, "complete": is_complete}


@pytest.mark.parametrize(
    "fault", [SLOW_DOWN, Replace(s3_error(500, "InternalError")), Drop()], ids=["503", "500", "drop"]
)
@pytest.mark.parametrize("kind", _EVERY)
def test_a_fault_that_passes_is_not_seen(
    client: S3Client, bucket: str, proxy: RecordingProxy, kind: str, fault: Fault
) -> None:
    proxy.misbehave = first(2, fault, when=_EVERY[kind])
    data = save(client, bucket, 1000 if kind == "PUT" else LARGE)
    assert read_back(client, bucket) == data
    assert_no_upload_remains(client, bucket, proxy)
    assert len([each for each in matching(proxy, _EVERY[kind]) if each.status != 200]) == 2


@pytest.mark.parametrize("kind", ["PUT", "part"])
def test_a_request_whose_response_is_lost_is_sent_again(
    client: S3Client, bucket: str, proxy: RecordingProxy, kind: str
) -> None:
    proxy.misbehave = first(1, LoseResponse(), when=_EVERY[kind])
    data = save(client, bucket, 1000 if kind == "PUT" else LARGE)
    assert read_back(client, bucket) == data


# -- faults that stay ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", _EVERY)
def test_a_refused_request_leaves_the_old_object(
    client: S3Client, bucket: str, proxy: RecordingProxy, kind: str
) -> None:
    proxy.misbehave = first(100, DENIED, when=_EVERY[kind])
    with pytest.raises(S3AccessDeniedError, match=r"s3:PutObject") as caught:
        save(client, bucket, 1000 if kind == "PUT" else LARGE)
    assert (caught.value.bucket, caught.value.key, caught.value.status) == (bucket, "key", 403)
    assert read_back(client, bucket) == OLD
    assert_no_upload_remains(client, bucket, proxy)
    assert client._runtime().budget.taken == 0


@pytest.mark.parametrize("number", ["1", "2", "4"])
def test_a_single_part_that_is_refused_ends_the_upload(
    client: S3Client, bucket: str, proxy: RecordingProxy, number: str
) -> None:
    proxy.misbehave = lambda request: DENIED if request.query.get("partNumber") == number else None
    with pytest.raises(S3AccessDeniedError):
        save(client, bucket, LARGE)
    assert read_back(client, bucket) == OLD
    assert not matching(proxy, is_complete)
    assert_no_upload_remains(client, bucket, proxy)


def test_the_next_write_after_a_refused_part_raises(client: S3Client, bucket: str, proxy: RecordingProxy) -> None:
    proxy.misbehave = lambda request: DENIED if is_part(request) else None
    writer = writer_of(client, bucket)
    writer.write(noise(PART + 1))
    failed = writer.stream._upload._parts[0]
    with pytest.raises(S3AccessDeniedError):
        failed.result(30)
    with pytest.raises(S3AccessDeniedError) as first_error:
        writer.write(b"more")
    with pytest.raises(S3UploadAbortedError, match=r"was aborted: .*access denied") as second:
        writer.write(b"more")
    assert second.value.__cause__ is first_error.value
    with pytest.raises(S3UploadAbortedError, match="was aborted"):
        writer.close()
    assert writer.closed
    writer.close()
    assert read_back(client, bucket) == OLD
    assert not matching(proxy, is_complete)
    assert_no_upload_remains(client, bucket, proxy)


def test_after_a_failed_close_nothing_is_stored(client: S3Client, bucket: str, proxy: RecordingProxy) -> None:
    proxy.misbehave = first(1, DENIED, when=is_put)
    writer = writer_of(client, bucket)
    writer.write(b"new")
    with pytest.raises(S3AccessDeniedError):
        writer.close()
    writer.close()  # closed already, as any file
    with pytest.raises(S3UploadAbortedError):
        writer.stream.close()
    with pytest.raises(S3UploadAbortedError):
        writer.stream.write(b"more")
    assert read_back(client, bucket) == OLD
    assert len(matching(proxy, is_put)) == 1


def test_an_outage_ends_in_an_error_that_says_so(s3_server: S3Server, bucket: str, proxy: RecordingProxy) -> None:
    config = S3ClientConfig(part_size=PART, max_attempts=2)
    proxy.misbehave = lambda request: Drop() if is_part(request) else None
    with client_of(proxy.endpoint, config) as client:
        with pytest.raises(S3ConnectionError, match=r"UploadPart.*after 2 attempts"):
            save(client, bucket, LARGE)
        assert uploads_of(client, bucket) == []


@pytest.mark.parametrize("size", [10, LARGE])
def test_a_missing_bucket(s3_server: S3Server, size: int) -> None:
    client = client_of(s3_server.endpoint)
    with client, pytest.raises(S3NotFoundError, match=r"^Service error: The bucket does not exist"):
        save(client, "no-such-bucket", size)


# -- errors of the program's own ----------------------------------------------------------------------------------


def _interrupted(*args: object) -> None:
    raise KeyboardInterrupt


def test_after_an_interrupted_write_nothing_is_stored(
    client: S3Client, bucket: str, proxy: RecordingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = writer_of(client, bucket)
    writer.write(noise(100))
    monkeypatch.setattr(writer.stream._upload.filling, "add", lambda *_, **__: _interrupted())
    with pytest.raises(KeyboardInterrupt):
        writer.write(noise(100))
    with pytest.raises(S3UploadAbortedError):
        writer.close()
    assert read_back(client, bucket) == OLD


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("can't start new thread")])
@pytest.mark.parametrize("end", [lambda writer: writer.write(bytearray(PART)), lambda writer: writer.close()])
def test_a_part_that_no_worker_takes_gives_its_memory_back(
    client: S3Client, bucket: str, proxy: RecordingProxy, monkeypatch: pytest.MonkeyPatch, end: Any, error: Any
) -> None:
    def refuse(job: object) -> None:
        raise error

    writer = writer_of(client, bucket)
    writer.write(bytearray(PART + 1))
    monkeypatch.setattr(writer.stream._upload._lane, "submit", refuse)
    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        end(writer)
    assert client._runtime().budget.taken == 0
    assert_no_upload_remains(client, bucket, proxy)
    assert read_back(client, bucket) == OLD


def test_a_writer_fails_after_its_client_was_closed(s3_server: S3Server, bucket: str) -> None:
    client = client_of(s3_server.endpoint)
    writer = writer_of(client, bucket)
    writer.write(noise(10))
    client.close()
    with pytest.raises((RuntimeError, S3Exception), match="closed"):
        writer.write(noise(4 * PART))
    with pytest.raises(S3UploadAbortedError):
        writer.close()
    with client, pytest.raises(S3NotFoundError):
        client.head_object(bucket, "key")


@pytest.mark.parametrize("end", [lambda writer: writer.abort(), lambda writer: writer.close()])
def test_the_end_of_an_upload_gives_its_memory_back(
    s3_server: S3Server, bucket: str, end: Callable[[Any], None]
) -> None:
    with client_of(s3_server.endpoint, SMALL_PARTS) as client:
        writer = writer_of(client, bucket)
        writer.write(bytearray(noise(LARGE)))
        assert client._runtime().budget.taken > 0
        end(writer)
        assert client._runtime().budget.taken == 0
