"""Listings: pages, common prefixes, keys of all kinds, and streams that are pickled midway."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3torchconnector._errors import S3NotFoundError
from s3torchconnector._s3client import S3Client
from s3torchconnector.testing import S3Server
from s3torchconnectorclient._mountpoint_s3_client import ListObjectResult, ListObjectStream, ObjectInfo
from tests.listing.support import document
from tests.reading.support import client_of, content, open_object, put
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.moto_server import MotoServer
from tests.servers.proxy import RecordingProxy, Replace, first
from tests.servers.scripted import ScriptedServer

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


def test_what_a_listing_says_about_an_object(client: S3Client, moto_bucket: str) -> None:
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
    stream = client.list_objects("missing-bucket")  # sends no request yet
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
def test_a_pickled_stream_continues(client: S3Client, moto_bucket: str, pages_before: int) -> None:
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


@given(pages=st.lists(st.tuples(st.lists(NAMES, max_size=5), NAMES), min_size=1, max_size=4))
@settings(max_examples=40)
def test_any_keys_and_any_tokens(s3_server: S3Server, pages: list[tuple[list[str], str]]) -> None:
    """Tokens come back as they were given, whatever characters they have."""
    tokens = [f"{number}{token}" for number, (_, token) in enumerate(pages[:-1])]

    def respond(request: ReceivedRequest) -> bytes:
        token = request.query.get("continuation-token")
        number = 0 if token is None else tokens.index(token) + 1
        following = tokens[number] if number < len(tokens) else None
        encoded = request.query.get("encoding-type") == "url"
        assert encoded
        return response(200, document(pages[number][0], following))

    with ScriptedServer(handler=respond) as server, client_of(server.endpoint) as client:
        assert keys_of(client.list_objects("bucket")) == [keys for keys, _ in pages]
        assert len(server.requests) == len(pages)
