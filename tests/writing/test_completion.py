"""The last request of a multipart upload: a lost response, a late error, an upload that is gone.

The faults are the recording proxy's, between the client and a real server.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from s3torchconnector import S3ClientConfig, S3Exception
from s3torchconnector._config import MIB
from s3torchconnector._errors import S3NotFoundError, S3ServiceError
from s3torchconnector._s3client import S3Client
from s3torchconnector._wire._checksums import ALGORITHMS
from s3torchconnector.testing import S3Server
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.moto_server import MotoServer
from tests.servers.proxy import Fault, LoseResponse, RecordingProxy, Replace, first
from tests.servers.scripted import ScriptedServer
from tests.writing.support import (
    PART,
    client_of,
    is_abort,
    is_complete,
    is_create,
    is_part,
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


@pytest.mark.parametrize("server", ["rclone", "moto"])
def test_a_lost_response_to_the_completion(request: pytest.FixtureRequest, server: str, caplog: Any) -> None:
    endpoint, bucket = _place(request, server)
    caplog.set_level(logging.INFO, "s3torchconnector")
    with RecordingProxy(endpoint) as proxy, client_of(proxy.endpoint) as client:
        proxy.misbehave = first(1, LoseResponse(), when=is_complete)
        data = save(client, bucket, LARGE)
        assert read_back(client, bucket) == data
        assert len(matching(proxy, is_complete)) == 2
        assert not matching(proxy, is_abort)
        assert uploads_of(client, bucket) == []
    if server == "rclone":  # moto responds with 200 again
        assert "was stored by an attempt whose response was lost" in caplog.text


def _place(request: pytest.FixtureRequest, server: str) -> tuple[str, str]:
    if server == "rclone":
        return request.getfixturevalue("s3_server").endpoint, request.getfixturevalue("bucket")
    return request.getfixturevalue("moto_server").endpoint, request.getfixturevalue("moto_bucket")


def test_a_lost_response_with_no_attempt_left(s3_server: S3Server, bucket: str, proxy: RecordingProxy) -> None:
    """No attempt is left, so the key is looked at: the object is there."""
    config = S3ClientConfig(part_size=PART, max_attempts=1)
    with client_of(proxy.endpoint, config) as client:
        proxy.misbehave = first(1, LoseResponse(), when=is_complete)
        data = save(client, bucket, LARGE)
        assert read_back(client, bucket) == data


@pytest.mark.parametrize("code", ["InternalError", "SlowDown"])
def test_a_late_error_that_passes(client: S3Client, bucket: str, proxy: RecordingProxy, code: str) -> None:
    proxy.misbehave = first(1, Replace(late_error(code)), when=is_complete)
    data = save(client, bucket, LARGE)
    assert read_back(client, bucket) == data
    assert len(matching(proxy, is_complete)) == 2


def late_error(code: str) -> bytes:
    """200 with blanks that keep the connection alive, and then an error."""
    return response(200, b"   \n" + s3_error(400, code).split(b"\r\n\r\n", 1)[1])


def test_a_late_error_that_stays(client: S3Client, bucket: str, proxy: RecordingProxy) -> None:
    proxy.misbehave = lambda request: Replace(late_error("InvalidPart")) if is_complete(request) else None
    with pytest.raises(S3ServiceError, match="InvalidPart"):
        save(client, bucket, LARGE)
    assert read_back(client, bucket) == OLD
    assert [each.status for each in matching(proxy, is_abort)] == [204]
    assert uploads_of(client, bucket) == []


def test_an_upload_that_somebody_else_aborted(client: S3Client, bucket: str, proxy: RecordingProxy) -> None:
    """NoSuchUpload at the first attempt is no lost response, whatever is stored at the key."""
    proxy.misbehave = lambda request: Replace(s3_error(404, "NoSuchUpload")) if is_complete(request) else None
    with pytest.raises(S3NotFoundError, match="multipart upload does not exist"):
        save(client, bucket, LARGE)
    assert read_back(client, bucket) == OLD


def test_an_old_object_of_the_same_size_is_not_taken_for_ours(
    bucket: str, moto_server: MotoServer, moto_bucket: str
) -> None:
    """The first response to the completion is 503, the next NoSuchUpload: nothing was stored."""
    responses = iter([SLOW_DOWN, Replace(s3_error(404, "NoSuchUpload"))])
    with RecordingProxy(moto_server.endpoint) as proxy, client_of(proxy.endpoint) as client:
        old = save(client, moto_bucket, LARGE)
        proxy.misbehave = lambda request: next(responses, None) if is_complete(request) else None
        writer = writer_of(client, moto_bucket)
        writer.write(noise(LARGE, seed=5))
        with pytest.raises(S3NotFoundError):
            writer.close()
        assert read_back(client, moto_bucket) == old


@pytest.mark.parametrize("checksum", ["when_supported", "off"])
@pytest.mark.parametrize("moment", ["before", "during"])
def test_an_object_of_one_put_is_not_taken_for_ours(
    s3_server: S3Server, bucket: str, proxy: RecordingProxy, moment: str, checksum: str
) -> None:
    """The upload was aborted. What is stored has the same size, an ETag that tells nothing, and is as new as ours."""
    config = S3ClientConfig(part_size=PART, checksum=checksum)
    one_put = S3ClientConfig(part_size=64 * MIB, checksum=checksum)

    def store_another() -> None:
        with client_of(s3_server.endpoint, one_put) as other:
            save(other, bucket, LARGE)

    def misbehave(request: ReceivedRequest) -> Fault | None:
        if not is_complete(request):
            return None
        if moment == "during":
            store_another()
        return Replace(s3_error(404, "NoSuchUpload"))

    if moment == "before":
        store_another()
    proxy.misbehave = misbehave
    with client_of(proxy.endpoint, config) as client:
        writer = writer_of(client, bucket)
        writer.write(noise(LARGE, seed=5))
        with pytest.raises(S3NotFoundError, match="multipart upload does not exist"):
            writer.close()
        assert read_back(client, bucket) == noise(LARGE)


def test_the_stored_object_cannot_be_looked_at(bucket: str, proxy: RecordingProxy) -> None:
    """Nobody knows what became of the completion, and the error says so."""

    def misbehave(request: ReceivedRequest) -> Fault | None:
        if request.method == "HEAD":
            return Replace(response(403))
        return LoseResponse() if is_complete(request) else None

    proxy.misbehave = misbehave
    config = S3ClientConfig(part_size=PART, max_attempts=1)
    with (
        client_of(proxy.endpoint, config) as client,
        pytest.raises(S3Exception, match=r"Whether the object was stored nevertheless could not be looked up .*403"),
    ):
        save(client, bucket, LARGE)


DATA = noise(PART + 11)
OURS = {each.header: each.encode(each.of([DATA])) for each in ALGORITHMS[:1]}
ANOTHERS = {each.header: each.encode(each.of([DATA[1:]])) for each in ALGORITHMS[:1]}
OTHER_KIND = {each.header: each.encode(each.of([DATA])) for each in ALGORITHMS[1:]}
BEGUN = "Sun, 22 Nov 2026 12:00:10 GMT"
EARLIER = "Sun, 22 Nov 2026 12:00:09 GMT"


class Forgetful:
    """Completes nothing: is overloaded first, and then knows no upload; ``stored`` is what it says of the object."""

    def __init__(self, stored: dict[str, str], begun: str | None = BEGUN) -> None:
        self._stored = {"content-length": str(len(DATA)), "date": BEGUN, "last-modified": BEGUN} | stored
        self._date = {"date": begun} if begun else {}
        self._responses = iter([s3_error(503, "SlowDown")])

    def __call__(self, request: ReceivedRequest) -> bytes:
        if is_create(request):
            document = b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
            return response(200, document, self._date)
        if is_part(request):
            return response(200, headers={"etag": f'"{request.query["partNumber"]:0>32}"'})
        if is_complete(request):
            return next(self._responses, s3_error(404, "NoSuchUpload"))
        return response(200, headers=self._stored) if request.method == "HEAD" else response(204)


@pytest.mark.parametrize(
    "stored",
    [
        {"last-modified": EARLIER, "etag": '"of-some-kind"', **OURS},  # encrypted: not an ETag of MD5s
        {"etag": '"of the whole"'},
    ],
    ids=["checksum", "time"],
)
@pytest.mark.usefixtures("s3_server")  # for its keys
def test_what_shows_that_an_object_is_ours(stored: dict[str, str]) -> None:
    with ScriptedServer(handler=Forgetful(stored)) as server, client_of(server.endpoint) as client:
        assert save(client, "b", len(DATA)) == DATA


@pytest.mark.parametrize(
    ("stored", "begun"),
    [
        (ANOTHERS, BEGUN),
        (OTHER_KIND, BEGUN),
        ({"etag": '"0123456789abcdef0123456789abcdef-2"'}, BEGUN),
        ({"content-length": "7", **OURS}, BEGUN),
        ({"last-modified": EARLIER}, BEGUN),
        ({"last-modified": "never"}, BEGUN),
        ({}, None),
    ],
    ids=["checksum", "kind of checksum", "ETag", "size", "a second earlier", "no time", "no clock"],
)
@pytest.mark.usefixtures("s3_server")
def test_what_shows_that_an_object_is_not_ours(stored: dict[str, str], begun: str | None) -> None:
    server = ScriptedServer(handler=Forgetful(stored, begun))
    with server, client_of(server.endpoint) as client, pytest.raises(S3NotFoundError):
        save(client, "b", len(DATA))
