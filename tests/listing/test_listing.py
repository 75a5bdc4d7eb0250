"""Listings: pages, common prefixes, keys of all kinds, and streams that are pickled midway."""

from __future__ import annotations

import copy
import os
import pickle
import random
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3torchconnector import S3CheckpointManager
from s3torchconnector._errors import S3ConfigurationError, S3NotFoundError, S3ProtocolError
from s3torchconnector._s3client import S3Client
from s3torchconnector.testing import S3Server
from s3torchconnectorclient._mountpoint_s3_client import ListObjectResult, ListObjectStream, ObjectInfo
from tests.reading.support import client_of, content, open_object, put
from tests.reading.test_reader_fork import Child
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.moto_server import MotoServer
from tests.servers.proxy import RecordingProxy, Replace, first
from tests.servers.scripted import Reply, ScriptedServer, Send, Stall

TIMEOUT = 10.0  # seconds; a listing that never has so many requests under way fails then

STRANGE = [
    "a b",
    "a+b",
    "a%20b",
    "a%b",
    "a&b",
    "a<b>c",
    "quote\"and'quote",
    "semi;colon",
    "ünïcödé",
    "日本語/ключ",
    "emoji 🎉",
    "tilde~star*(paren)!",
    "question?mark=equals#hash",
    "colon:at@comma,$",
    "e\u0301 and é",
    "back\\slash",
    "deep/er/and/deeper",
    " leading and trailing ",
    "dots..dots",
]


@pytest.fixture
def client(moto_server: MotoServer, moto_bucket: str) -> Iterator[S3Client]:
    with client_of(moto_server.endpoint) as client:
        yield client


def keys_of(stream: Any) -> list[list[str]]:
    return [[info.key for info in page.object_info] for page in stream]


def test_pages(client: S3Client, moto_bucket: str) -> None:
    for number in range(7):
        put(client, moto_bucket, f"prefix/{number}", content(0, number))
    put(client, moto_bucket, "other", b"")
    stream = client.list_objects(moto_bucket, "prefix/", max_keys=3)
    assert isinstance(stream, ListObjectStream)
    assert iter(stream) is stream
    assert (stream.bucket, stream.prefix, stream.delimiter, stream.max_keys) == (moto_bucket, "prefix/", "", 3)
    assert (stream.continuation_token, stream.complete) == (None, False)
    page = next(stream)
    assert isinstance(page, ListObjectResult)
    assert page.common_prefixes == []
    assert [(info.key, info.size) for info in page.object_info] == [(f"prefix/{number}", number) for number in range(3)]
    assert (stream.continuation_token is None, stream.complete) == (False, False)
    assert keys_of(stream) == [["prefix/3", "prefix/4", "prefix/5"], ["prefix/6"]]
    assert (stream.continuation_token, stream.complete) == (None, True)
    with pytest.raises(StopIteration):
        next(stream)


def test_what_a_listing_tells_of_an_object(client: S3Client, moto_bucket: str) -> None:
    put(client, moto_bucket, "key", b"some bytes")
    (info,) = next(client.list_objects(moto_bucket)).object_info
    head = client.head_object(moto_bucket, "key")
    assert isinstance(info, ObjectInfo)
    assert (info.key, info.etag, info.size, info.last_modified) == ("key", head.etag, 10, head.last_modified)
    assert info.storage_class == "STANDARD"
    assert info.restore_status is None
    with open_object(client, moto_bucket, object_info=info) as reader:
        assert reader.read() == b"some bytes"


def test_an_empty_listing_is_one_empty_page(client: S3Client, moto_bucket: str) -> None:
    put(client, moto_bucket, "key", b"")
    assert list(client.list_objects(moto_bucket, "nothing/")) == [ListObjectResult([], [])]


def test_a_missing_bucket(client: S3Client) -> None:
    stream = client.list_objects("missing-bucket")  # asks for nothing yet
    for _ in range(2):
        with pytest.raises(S3NotFoundError, match=r"^Service error: The bucket does not exist"):
            next(stream)


def test_common_prefixes(client: S3Client, moto_bucket: str) -> None:
    for key in ("a/1", "a/2", "b", "c d/x", "c d/y/z", "ü&/1", "z"):
        put(client, moto_bucket, key, b"")
    (page,) = client.list_objects(moto_bucket, delimiter="/")
    assert [info.key for info in page.object_info] == ["b", "z"]
    assert page.common_prefixes == ["a/", "c d/", "ü&/"]
    (page,) = client.list_objects(moto_bucket, "c d/", "/")
    assert [info.key for info in page.object_info] == ["c d/x"]
    assert page.common_prefixes == ["c d/y/"]
    (page,) = client.list_objects(moto_bucket, delimiter="d/")
    assert page.common_prefixes == ["c d/"]


def test_pages_of_common_prefixes(client: S3Client, moto_bucket: str) -> None:
    for key in ("a/1", "b", "c/1", "d/1", "e"):
        put(client, moto_bucket, key, b"")
    pages = list(client.list_objects(moto_bucket, delimiter="/", max_keys=2))
    assert list(chain.from_iterable(page.common_prefixes for page in pages)) == ["a/", "c/", "d/"]
    assert [info.key for page in pages for info in page.object_info] == ["b", "e"]


def test_keys_of_all_kinds(client: S3Client, moto_bucket: str) -> None:
    for number, key in enumerate(STRANGE):
        put(client, moto_bucket, key, str(number).encode())
    listed = chain.from_iterable(keys_of(client.list_objects(moto_bucket, max_keys=4)))
    assert list(listed) == sorted(STRANGE, key=str.encode)
    for number, key in enumerate(STRANGE):
        assert key in keys_of(client.list_objects(moto_bucket, key))[0]
        with open_object(client, moto_bucket, key) as reader:
            assert reader.read() == str(number).encode()


def test_keys_of_all_kinds_are_signed_right(s3_server: S3Server, bucket: str) -> None:
    """rclone checks signatures; as files, some names cannot be."""
    kept = [key for key in STRANGE if "\\" not in key and key == key.strip()]
    with client_of(s3_server.endpoint) as client:
        for number, key in enumerate(kept):
            put(client, bucket, key, str(number).encode())
        for number, key in enumerate(kept):
            assert client.head_object(bucket, key).size == len(str(number))
            assert keys_of(client.list_objects(bucket, key)) == [[key]]
            with open_object(client, bucket, key) as reader:
                assert reader.read() == str(number).encode()


@pytest.mark.parametrize("pages_before", [0, 1, 2, 3])
def test_a_pickled_stream_goes_on_where_it_was(client: S3Client, moto_bucket: str, pages_before: int) -> None:
    for number in range(5):
        put(client, moto_bucket, f"a b/{number}", b"")
    put(client, moto_bucket, "a b/sub/1", b"")
    stream = client.list_objects(moto_bucket, "a b/", "/", max_keys=2)
    before = [next(stream) for _ in range(pages_before)]
    copied = pickle.loads(pickle.dumps(stream))
    assert isinstance(copied, ListObjectStream)
    for name in ("bucket", "prefix", "delimiter", "max_keys", "continuation_token", "complete"):
        assert getattr(copied, name) == getattr(stream, name)
    rest = list(stream)
    assert list(copied) == rest
    assert before + rest == list(client.list_objects(moto_bucket, "a b/", "/", max_keys=2))
    assert list(copy.copy(stream)) == []
    copied._open_runtime().close()


def test_a_stream_in_a_forked_child(client: S3Client, moto_bucket: str) -> None:
    for number in range(5):
        put(client, moto_bucket, str(number), b"")
    stream = client.list_objects(moto_bucket, max_keys=2)
    next(stream)
    receiver, sender = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(sender, repr(keys_of(stream)).encode())
        finally:
            os._exit(0)
    os.close(sender)
    with open(receiver) as pipe:
        assert pipe.read() == repr([["2", "3"], ["4"]])
    os.waitpid(pid, 0)
    assert keys_of(stream) == [["2", "3"], ["4"]]


def test_an_error_loses_no_page(client: S3Client, moto_server: MotoServer, moto_bucket: str) -> None:
    for number in range(6):
        put(client, moto_bucket, str(number), b"")
    denied = Replace(s3_error(403, "AccessDenied"))
    with RecordingProxy(moto_server.endpoint) as proxy, client_of(proxy.endpoint) as other:
        proxy.misbehave = first(2, denied, when=lambda request: "continuation-token" in request.query)
        stream = other.list_objects(moto_bucket, max_keys=2)
        got = [next(stream)]
        for _ in range(2):
            with pytest.raises(PermissionError):
                next(stream)
        got += stream
    assert [[info.key for info in page.object_info] for page in got] == [["0", "1"], ["2", "3"], ["4", "5"]]


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)


def document(keys: list[str], token: str | None) -> bytes:
    """A page as S3 sends it with ``encoding-type=url``."""
    contents = "".join(
        f"<Contents><Key>{quote(key)}</Key><LastModified>2024-02-29T12:00:00.000Z</LastModified>"
        f"<ETag>&quot;e&quot;</ETag><Size>{number}</Size><StorageClass>GLACIER</StorageClass></Contents>"
        for number, key in enumerate(keys)
    )
    more = f"<NextContinuationToken>{escape(token)}</NextContinuationToken>" if token else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<EncodingType>url</EncodingType><IsTruncated>{'true' if token else 'false'}</IsTruncated>{more}{contents}"
        "</ListBucketResult>"
    ).encode()


@given(pages=st.lists(st.tuples(st.lists(NAMES, max_size=5), NAMES), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_any_keys_and_any_tokens(s3_server: S3Server, pages: list[tuple[list[str], str]]) -> None:
    """Tokens come back as they were given, whatever characters they have."""
    tokens = [f"{number}{token}" for number, (_, token) in enumerate(pages[:-1])]

    def answer(request: ReceivedRequest) -> bytes:
        token = request.query.get("continuation-token")
        number = 0 if token is None else tokens.index(token) + 1
        following = tokens[number] if number < len(tokens) else None
        encoded = request.query.get("encoding-type") == "url"
        assert encoded
        return response(200, document(pages[number][0], following))

    with ScriptedServer(handler=answer) as server, client_of(server.endpoint) as client:
        assert keys_of(client.list_objects("bucket")) == [keys for keys, _ in pages]
        assert len(server.requests) == len(pages)


class Pages:
    """Answers listings of ``keys``, page by page, in their order, as the handler of a ``ScriptedServer``.

    Args:
        keys: all keys.
        knows_start_after: or ignores it.
        order: what ``keys`` are sorted by.
        empty: places in ``keys`` before which there is a page without keys.
        most: requests after which the listing is refused, since it seems not to end.
    """

    SIZE = 50

    def __init__(
        self,
        keys: list[str],
        *,
        knows_start_after: bool = True,
        order: Callable[[str], Any] = str,
        empty: Any = (),
        most: int = 200,
    ) -> None:
        self.keys = keys
        self._knows_start_after = knows_start_after
        self._order = order
        self._empty = empty
        self._left = most

    def __call__(self, request: ReceivedRequest) -> bytes:
        self._left -= 1
        if self._left < 0:
            return s3_error(403, "TooManyRequests")
        place, passed = self._place(request.query)
        if place in self._empty and not passed:
            return response(200, document([], f"{place}:passed"))
        stop = place + self.SIZE
        return response(200, document(self.keys[place:stop], f"{stop}:" if stop < len(self.keys) else None))

    def _place(self, query: dict[str, str]) -> tuple[int, bool]:
        if "continuation-token" in query:
            assert "start-after" not in query
            place, _, passed = query["continuation-token"].partition(":")
            return int(place), bool(passed)
        after = query.get("start-after", "") if self._knows_start_after else ""
        return bisect_right(self.keys, self._order(after), key=self._order) if after else 0, False


NUMBERED = [f"{number:06d}" for number in range(1000)]


def all_keys(client: S3Client, bucket: str = "bucket") -> list[str]:
    return [key for page in client.list_all(bucket) for key in page.keys]


def test_listing_all_goes_on_behind_pages_without_keys() -> None:
    """S3 sends them where it had to pass many deleted keys."""
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
    """U+FF5E comes before U+1F600 in UTF-8, and after it in UTF-16, where that is D83D DE00."""
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
def test_a_listing_whose_tokens_go_round_in_a_circle_is_an_error(
    listing: Callable[[S3Client], Any], operation: str, keys: list[str], circle: int
) -> None:
    left = [True] * 50

    def answer(request: ReceivedRequest) -> bytes:
        if request.method == "DELETE":
            return response(204)
        if not left:
            return s3_error(403, "TooManyRequests")
        left.pop()
        asked = request.query.get("continuation-token") or request.query.get("key-marker", "0")
        token = str(int(asked) % circle + 1)
        if "uploads" not in request.query:
            return response(200, document(keys, token))
        markers = f"<NextKeyMarker>{token}</NextKeyMarker><NextUploadIdMarker>i</NextUploadIdMarker>"
        truncated = f"<IsTruncated>true</IsTruncated>{markers}"
        return response(200, f"<ListMultipartUploadsResult>{truncated}</ListMultipartUploadsResult>".encode())

    with (
        ScriptedServer(handler=answer) as server,
        client_of(server.endpoint, unsigned=True, max_attempts=1) as client,
        pytest.raises(S3ProtocolError, match=rf"{operation} s3://bucket: .*would not end"),
    ):
        listing(client)


def test_listing_all_goes_on_in_a_forked_child() -> None:
    """What the parent has asked for, and got no answer to, is asked for anew; the parent goes on as well."""
    pages, release = Pages(NUMBERED), threading.Event()

    def answer(request: ReceivedRequest) -> Reply:
        page = pages(request)
        return [Stall(release), Send(page)] if "start-after" in request.query else page  # guesses

    with ScriptedServer(handler=answer) as server, client_of(server.endpoint, unsigned=True) as client:
        listing = client.list_all("bucket")
        before = [*next(listing).keys, *next(listing).keys]
        closed = Child(lambda: [listing.close(), b"closed"][1])  # type: ignore[attr-defined]
        child = Child(lambda: repr([key for page in listing for key in page.keys]).encode())
        assert closed.result() == b"closed"
        release.set()
        assert child.result() == repr(NUMBERED[len(before) :]).encode()
        assert before + [key for page in listing for key in page.keys] == NUMBERED


def test_listing_all_where_there_is_no_endpoint() -> None:
    bucket = "arn:aws:s3::123456789012:accesspoint:mfzwi23gnjvgw.mrap"
    with S3Client("us-west-2") as client, pytest.raises(S3ConfigurationError, match=r"^ListObjectsV2 s3://") as caught:
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

    def answer(request: ReceivedRequest) -> bytes:
        if "session" in request.query:
            return response(200, session.encode())
        return s3_error(501, "NotImplemented") if "start-after" in request.query else pages(request)

    with ScriptedServer(handler=answer) as server, client_of(server.endpoint) as client:
        assert all_keys(client, "train--usw2-az1--x-s3") == keys
        assert len(server.requests) == len(keys) // Pages.SIZE + sessions


def test_pages_of_one_prefix_are_fetched_at_a_time() -> None:
    """The server owes an answer to each of eight requests before it gives any."""
    keys = [f"prefix/{number:08}" for number in range(5000)]
    pages = Pages(keys)
    at_a_time, known = 8, 20  # guesses are trusted once the first ones have brought something
    waiting: set[str] = set()  # by where they begin: a request that is hedged counts once
    most: list[int] = [0]
    release = threading.Event()

    def answer(request: ReceivedRequest) -> bytes:
        if len(server.requests) > known and not release.is_set():
            waiting.add(request.query.get("continuation-token", "") or request.query.get("start-after", ""))
            most[0] = max(most[0], len(waiting))
            if most[0] < at_a_time:
                release.wait(TIMEOUT)
            release.set()
        return pages(request)

    with ScriptedServer(handler=answer) as server, client_of(server.endpoint, unsigned=True) as client:
        assert [key for page in client.list_all("bucket", "prefix/") for key in page.keys] == keys
        assert most[0] >= at_a_time
