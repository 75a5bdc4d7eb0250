"""All keys of a prefix, with many pages on their way: each key once, whatever the server does, and an end."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from s3torchconnector import S3CheckpointManager
from s3torchconnector._errors import S3ConfigurationError, S3ProtocolError
from s3torchconnector._s3client import S3Client
from tests.listing.support import NUMBERED, Pages, document
from tests.reading.support import client_of
from tests.reading.test_reader_fork import Child
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.scripted import Reply, ScriptedServer, Send, Stall

TIMEOUT = 10.0  # seconds; a listing that never has so many requests under way fails then


def all_keys(client: S3Client, bucket: str = "bucket") -> list[str]:
    return [key for page in client.list_all(bucket) for key in page.keys]


def test_listing_all_continues_after_pages_without_keys() -> None:
    """S3 sends them if it had to pass many deleted keys."""
    with (
        ScriptedServer(handler=Pages(NUMBERED, empty=range(0, 1000, Pages.SIZE))) as server,
        client_of(server.endpoint, unsigned=True) as client,
    ):
        assert all_keys(client) == NUMBERED


def test_listing_all_by_a_server_that_ignores_start_after(caplog: pytest.LogCaptureFixture) -> None:
    """It is listed page by page, and from its first page on when it is listed again."""
    pages = Pages(NUMBERED, knows_start_after=False)
    with ScriptedServer(handler=pages) as server, client_of(server.endpoint, unsigned=True) as client:
        assert all_keys(client) == NUMBERED
        server.requests.clear()
        assert all_keys(client) == NUMBERED
        assert len(server.requests) == len(NUMBERED) // Pages.SIZE
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "s3://bucket is not listed in the order of keys" in warning.getMessage()


@pytest.mark.parametrize("together", [True, False], ids=["on one page", "on different pages"])
def test_listing_all_by_a_server_that_sorts_by_utf_16(together: bool) -> None:
    """U+FF5E comes before U+1F600 in UTF-8, and after it in UTF-16, in which that is D83D DE00."""
    numbers = range(0, 1500, 10 if together else 1)
    keys = [f"{number:04d}" for number in range(0, 3000, 2)]
    keys += [f"{stem}{number:04d}" for number in numbers for stem in ("1\U0001f600", "1\uff5e")]
    keys.sort(key=lambda key: key.encode("utf-16-be"))
    pages = Pages(keys, order=lambda key: key.encode("utf-16-be"), most=1000)
    with ScriptedServer(handler=pages) as server, client_of(server.endpoint, unsigned=True) as client:
        assert all_keys(client) == keys
        assert all_keys(client) == keys


def manager_of(client: S3Client) -> S3CheckpointManager:
    region, endpoint, config = client.region, client.endpoint, client.s3client_config
    return S3CheckpointManager("s3://bucket/run", region, endpoint=endpoint, s3client_config=config)


@pytest.mark.parametrize("circle", [1, 2, 3])
@pytest.mark.parametrize("keys", [[], ["key"]], ids=["without keys", "with keys"])
@pytest.mark.parametrize(
    ("listing", "operation"),
    [
        (all_keys, "ListObjectsV2"),
        (lambda client: list(client.list_objects("bucket")), "ListObjectsV2"),
        (lambda client: client.delete_prefix("bucket", "k"), "ListObjectsV2"),
        (lambda client: list(client.list_multipart_uploads("bucket")), "ListMultipartUploads"),
        (lambda client: manager_of(client).steps(), "ListObjectsV2"),
        (lambda client: manager_of(client).latest(), "ListObjectsV2"),
    ],
    ids=["list_all", "list_objects", "delete_prefix", "list_multipart_uploads", "steps", "latest"],
)
def test_tokens_in_a_circle_are_an_error(
    listing: Callable[[S3Client], Any], operation: str, keys: list[str], circle: int
) -> None:
    left = [True] * 50

    def respond(request: ReceivedRequest) -> bytes:
        if request.method == "DELETE":
            return response(204)
        if not left:
            return s3_error(403, "TooManyRequests")
        left.pop()
        token = request.query.get("continuation-token") or request.query.get("key-marker", "0")
        token = str(int(token) % circle + 1)
        if "uploads" not in request.query:
            return response(200, document(keys, token))
        markers = f"<NextKeyMarker>{token}</NextKeyMarker><NextUploadIdMarker>i</NextUploadIdMarker>"
        truncated = f"<IsTruncated>true</IsTruncated>{markers}"
        return response(200, f"<ListMultipartUploadsResult>{truncated}</ListMultipartUploadsResult>".encode())

    with (
        ScriptedServer(handler=respond) as server,
        client_of(server.endpoint, unsigned=True, max_attempts=1) as client,
        pytest.raises(S3ProtocolError, match=rf"{operation} s3://bucket: .*would not end"),
    ):
        listing(client)


def test_listing_all_continues_in_a_forked_child() -> None:
    """What the parent has requested, without a response yet, is requested again; the parent continues as well."""
    pages, release = Pages(NUMBERED), threading.Event()

    def respond(request: ReceivedRequest) -> Reply:
        page = pages(request)
        return [Stall(release), Send(page)] if "start-after" in request.query else page  # guesses

    with ScriptedServer(handler=respond) as server, client_of(server.endpoint, unsigned=True) as client:
        listing = client.list_all("bucket")
        before = [*next(listing).keys, *next(listing).keys]
        closed = Child(lambda: [listing.close(), b"closed"][1])  # type: ignore[attr-defined]
        child = Child(lambda: repr([key for page in listing for key in page.keys]).encode())
        assert closed.result() == b"closed"
        release.set()
        assert child.result() == repr(NUMBERED[len(before) :]).encode()
        assert before + [key for page in listing for key in page.keys] == NUMBERED


def test_listing_all_without_a_server() -> None:
    bucket = "arn:aws:s3:us-west-2:123456789012:accesspoint:my-ap"  # its name cannot precede an IP address
    client = S3Client("us-west-2", endpoint="http://127.0.0.1:9")
    with client, pytest.raises(S3ConfigurationError, match=r"^ListObjectsV2 s3://") as caught:
        all_keys(client, bucket)
    assert (caught.value.operation, caught.value.bucket) == ("ListObjectsV2", bucket)


@pytest.mark.parametrize("sessions", [True, False])
def test_listing_all_of_a_directory_bucket(sessions: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has an order of its own, and does not know start-after:
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_S3_DISABLE_EXPRESS_SESSION_AUTH", str(not sessions).lower())
    keys = random.Random(1).sample(NUMBERED, len(NUMBERED))
    pages = Pages(keys)
    session = (
        "<CreateSessionResult><Credentials><SessionToken>t</SessionToken><SecretAccessKey>s</SecretAccessKey>"
        "<AccessKeyId>A</AccessKeyId><Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></CreateSessionResult>"
    )

    def respond(request: ReceivedRequest) -> bytes:
        if "session" in request.query:
            return response(200, session.encode())
        return s3_error(501, "NotImplemented") if "start-after" in request.query else pages(request)

    with ScriptedServer(handler=respond) as server, client_of(server.endpoint) as client:
        assert all_keys(client, "train--usw2-az1--x-s3") == keys
        assert len(server.requests) == len(keys) // Pages.SIZE + sessions


def test_pages_of_one_prefix_are_fetched_at_a_time() -> None:
    """The server has eight requests before it responds to any."""
    keys = [f"prefix/{number:08}" for number in range(5000)]
    pages = Pages(keys)
    at_a_time, known = 8, 20  # guesses are trusted once the first ones have brought something
    waiting: set[str] = set()  # by where they begin: a request that is hedged counts once
    most: list[int] = [0]
    release = threading.Event()

    def respond(request: ReceivedRequest) -> bytes:
        if len(server.requests) > known and not release.is_set():
            waiting.add(request.query.get("continuation-token", "") or request.query.get("start-after", ""))
            most[0] = max(most[0], len(waiting))
            if most[0] < at_a_time:
                release.wait(TIMEOUT)
            release.set()
        return pages(request)

    with ScriptedServer(handler=respond) as server, client_of(server.endpoint, unsigned=True) as client:
        assert [key for page in client.list_all("bucket", "prefix/") for key in page.keys] == keys
        assert most[0] >= at_a_time
