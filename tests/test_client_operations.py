"""``S3Client`` on real servers: every operation, any key."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from s3torchconnector._errors import S3NotFoundError
from s3torchconnector._s3client import S3Client
from s3torchconnector.testing import S3Server
from tests.servers.moto_server import MotoServer

_REGION = "us-east-1"


@pytest.fixture
def client(s3_server: S3Server) -> Iterator[S3Client]:
    with S3Client(_REGION, endpoint=s3_server.endpoint) as client:
        yield client


@pytest.fixture
def moto(moto_server: MotoServer, moto_bucket: str) -> Iterator[S3Client]:
    with S3Client(_REGION, endpoint=moto_server.endpoint) as client:
        yield client


def put(client: S3Client, bucket: str, key: str, data: bytes) -> None:
    stream = client.put_object(bucket, key)
    stream.write(data)
    stream.close()


def get(client: S3Client, bucket: str, key: str) -> bytes:
    with client.get_object(bucket, key) as reader:
        return reader.read()


def keys_of(client: S3Client, bucket: str, prefix: str = "", delimiter: str = "", max_keys: int = 1000) -> list[str]:
    pages = client.list_objects(bucket, prefix, delimiter, max_keys)
    return [info.key for page in pages for info in page.object_info]


# -- operations ---------------------------------------------------------------------------------------------------


def test_head(client: S3Client, bucket: str) -> None:
    put(client, bucket, "key", b"12345")
    head = client.head_object(bucket, "key")
    (info,) = next(client.list_objects(bucket)).object_info
    assert head.size == info.size == 5
    assert head.last_modified == info.last_modified > 1_600_000_000
    assert head.etag == '"827ccb0eea8a706c4c34a16891f84e7b"'
    assert head.restore_status is None


def test_delete(client: S3Client, bucket: str) -> None:
    put(client, bucket, "key", b"12345")
    client.delete_object(bucket, "key")
    with pytest.raises(S3NotFoundError, match=r"^Service error: The object was not found"):
        client.head_object(bucket, "key")
    client.delete_object(bucket, "key")  # deleted already: no error


def test_copy(client: S3Client, bucket: str) -> None:
    put(client, bucket, "a/source ü+%.bin", b"12345")
    client.copy_object(bucket, "a/source ü+%.bin", bucket, "b/copy")
    assert get(client, bucket, "b/copy") == get(client, bucket, "a/source ü+%.bin") == b"12345"


def test_copy_between_buckets(client: S3Client, s3_server: S3Server, bucket: str) -> None:
    s3_server.make_bucket("other-bucket")
    put(client, bucket, "key", b"12345")
    client.copy_object(bucket, "key", "other-bucket", "key")
    client.delete_object(bucket, "key")
    assert get(client, "other-bucket", "key") == b"12345"


def test_copy_of_a_missing_source(client: S3Client, bucket: str) -> None:
    put(client, bucket, "target", b"kept")
    with pytest.raises(S3NotFoundError, match=r"^Service error: The object was not found") as caught:
        client.copy_object(bucket, "missing", bucket, "target")
    assert (caught.value.operation, caught.value.status, caught.value.code) == ("CopyObject", 404, "NoSuchKey")
    assert isinstance(caught.value, FileNotFoundError)
    assert get(client, bucket, "target") == b"kept"


@pytest.mark.parametrize(
    ("operation", "text"),
    [
        (lambda client: client.head_object("no-such-bucket", "key"), "The object was not found"),
        (lambda client: get(client, "no-such-bucket", "key"), "The bucket does not exist"),
        (lambda client: next(client.list_objects("no-such-bucket")), "The bucket does not exist"),
        (lambda client: put(client, "no-such-bucket", "key", b""), "The bucket does not exist"),
    ],
    ids=["head", "get", "list", "put"],
)
def test_a_missing_bucket(client: S3Client, operation: object, text: str) -> None:
    assert callable(operation)
    with pytest.raises(S3NotFoundError, match=f"^Service error: {text}") as caught:
        operation(client)
    assert caught.value.bucket == "no-such-bucket"


def test_list(client: S3Client, bucket: str) -> None:
    names = [f"a/{i:02}" for i in range(5)] + ["a/b/c", "d", "e f/ü"]
    for name in names:
        put(client, bucket, name, name.encode())
    assert keys_of(client, bucket) == sorted(names)
    assert keys_of(client, bucket, "a/") == sorted(name for name in names if name.startswith("a/"))
    assert keys_of(client, bucket, "no such prefix") == []
    assert keys_of(client, bucket, max_keys=2) == sorted(names)
    (page,) = client.list_objects(bucket, delimiter="/")
    assert [info.key for info in page.object_info] == ["d"]
    assert page.common_prefixes == ["a/", "e f/"]


def test_a_copied_listing_goes_on_from_its_page(client: S3Client, bucket: str) -> None:
    names = [f"{i}" for i in range(7)]
    for name in names:
        put(client, bucket, name, b"")
    listing = client.list_objects(bucket, max_keys=3)
    assert (listing.continuation_token, listing.complete) == (None, False)
    first = next(listing)
    assert listing.continuation_token
    copy = pickle.loads(pickle.dumps(listing))
    rest = [info.key for page in listing for info in page.object_info]
    assert [info.key for info in first.object_info] + rest == names
    assert [info.key for page in copy for info in page.object_info] == rest
    assert listing.complete
    assert copy.complete
    assert listing.continuation_token is None
    assert list(listing) == []


# -- keys ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", ["a b", "ü/日本/🙂", "a+b", "100%", "%41", "a&b=c?d#e", "'(!)*~$@:;,", "a\\b", '"<>|^`{}[']
)
def test_special_keys_on_rclone(client: S3Client, bucket: str, key: str) -> None:
    put(client, bucket, key, key.encode())
    assert get(client, bucket, key) == key.encode()
    assert keys_of(client, bucket) == [key]
    assert client.head_object(bucket, key).size == len(key.encode())
    client.copy_object(bucket, key, bucket, "copy")
    assert get(client, bucket, "copy") == key.encode()
    client.delete_object(bucket, key)
    assert keys_of(client, bucket) == ["copy"]


_KEY = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\ufffe\uffff"), min_size=1, max_size=40
)


@settings(max_examples=40)
@given(key=_KEY)
@example(key="a//b")
@example(key="a/../b")
@example(key="../b")
@example(key="./a")
@example(key="a/./b/..")
@example(key="trailing space ")
@example(key=" leading")
@example(key="/absolute")
@example(key="directory/")
@example(key="a+b c%20d%")
@example(key="%2E%2E/%2F")
@example(key="?versionId=1&uploads#x")
@example(key="e\u0301 \u00e9")
@example(key="k" * 1024)
@example(key="é" * 512)  # 1,024 bytes
def test_any_key_on_moto(moto: S3Client, moto_bucket: str, key: str) -> None:
    data = key.encode()
    put(moto, moto_bucket, key, data)
    assert get(moto, moto_bucket, key) == data
    assert keys_of(moto, moto_bucket) == [key]
    assert keys_of(moto, moto_bucket, prefix=key) == [key]
    moto.copy_object(moto_bucket, key, moto_bucket, "copy of it")
    assert get(moto, moto_bucket, "copy of it") == data
    moto.delete_object(moto_bucket, "copy of it")
    moto.delete_object(moto_bucket, key)
    assert keys_of(moto, moto_bucket) == []
