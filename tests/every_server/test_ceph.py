"""The gateway of Ceph 16: what it ignores, and what it writes in another way than S3."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from s3torchconnector._errors import (
    S3AccessDeniedError,
    S3Exception,
    S3ObjectExistsError,
    S3ServiceError,
)
from s3torchconnector._s3client import S3Client
from s3torchconnector._wire import _list_page, operations, parse_list_page, read_document
from tests.reading.support import MIB, PART, client_of, content, put
from tests.servers.http_messages import ReceivedRequest, s3_error
from tests.servers.scripted import ScriptedServer
from tests.servers.stand_ins import AwsLike, Ceph16

pytestmark = pytest.mark.usefixtures("s3_server")  # for its keys
DATA = content(0, PART + MIB)
KEYS = ["a b", "epoch=1-step=2.ckpt", "it's", "plus+", "z%41", "ö/ü"]


@pytest.fixture
def ceph() -> Iterator[tuple[Ceph16, S3Client]]:
    memory = Ceph16()
    with memory.serve() as server, client_of(server.endpoint) as client:
        yield memory, client


@pytest.mark.parametrize("kind", [Ceph16, AwsLike])
def test_uploads_are_listed_by_their_keys(kind: type[AwsLike]) -> None:
    memory = kind()
    with memory.serve() as server, client_of(server.endpoint) as client:
        for key in [*KEYS, "x\x01y"]:
            client._runtime().caller.call(operations.create_multipart_upload("bucket", key), read_document)
        found = list(client.list_multipart_uploads("bucket"))
        assert [upload.key for upload in found] == [*KEYS[:4], "x\x01y", *KEYS[4:]]
        for upload in found:
            client.abort_multipart_upload("bucket", upload.key, upload.upload_id)
        assert memory.uploads == {}
        assert memory.count("GET", "uploads", "max-uploads", "prefix") == 1


def test_a_listing_is_read_fast(ceph: tuple[Ceph16, S3Client], monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser sees a page without its entries."""
    memory, client = ceph
    for key in KEYS:
        put(client, "bucket", key, b"data")
    parsed: list[bytes] = []
    parse = _list_page.parse
    monkeypatch.setattr(_list_page, "parse", lambda data: parsed.append(data) or parse(data))  # type: ignore[func-returns-value]
    page = parse_list_page(memory._list({"prefix": "", "max-keys": "1000"}).partition(b"\r\n\r\n")[2])
    assert page.objects.keys == KEYS
    assert [b"<Key>" in data for data in parsed] == [False]


@pytest.mark.parametrize("written", [b"x\x01y", b"x&#x01;y", b"x&#1;y"])
def test_a_control_character_does_not_hide_a_bucket(written: bytes) -> None:
    entry = (
        b"<Contents><Key>%b</Key><LastModified>2026-01-31T10:20:30.000Z</LastModified><ETag>e</ETag><Size>1</Size>"
        b"</Contents>"
    )
    document = b"<ListBucketResult>" + entry % b"a" + entry % written + entry % b"z" + b"</ListBucketResult>"
    assert parse_list_page(document).objects.keys == ["a", "x\x01y", "z"]


def test_a_create_only_multipart_upload_replaces_nothing(ceph: tuple[Ceph16, S3Client]) -> None:
    memory, client = ceph
    writers = [client.put_object("bucket", "key", overwrite=False) for _ in range(3)]
    for number, writer in enumerate(writers):
        writer.write(bytes([number]) * (PART + MIB))
    writers[1].close()
    for writer in (writers[0], writers[2]):
        with pytest.raises(S3ObjectExistsError):
            writer.close()
    assert memory.objects["key"].data[:1] == b"\1"
    assert memory.uploads == {}


def test_aws_is_not_looked_at_before_a_completion() -> None:
    memory = AwsLike()
    with memory.serve() as server, client_of(server.endpoint) as client:
        writer = client.put_object("bucket", "key", overwrite=False)
        writer.write(DATA)
        writer.close()
        assert memory.count("HEAD") == 1  # when it was opened


class Damaging(Ceph16):
    """Through a proxy that changes a byte of the first upload."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 1

    def verify(self, request: ReceivedRequest) -> bytes | None:
        if self.left and request.body:
            self.left -= 1
            request.body = b"?" + request.body[1:]
        return super().verify(request)


@pytest.mark.parametrize("size", [1000, PART + MIB])
def test_required_has_uploads_verified_though_checksums_are_ignored(size: int) -> None:
    memory = Damaging()
    with memory.serve() as server, client_of(server.endpoint, checksum="required") as client:
        put(client, "bucket", "key", content(0, size))
        assert memory.left == 0
        assert memory.objects["key"].data == content(0, size)
        bodies = [each for each in memory.requests if each.method == "PUT"]
        assert all("content-md5" in each.headers for each in bodies)


def test_unverified_objects_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    memory = Ceph16()
    with (
        caplog.at_level("INFO", "s3torchconnector"),
        memory.serve() as server,
        client_of(server.endpoint) as client,
    ):
        for key in ("a", "b"):
            put(client, "bucket", key, DATA)
    assert caplog.text.count("does not confirm the checksums of uploads") == 1


def test_aws_is_sent_no_md5_once_it_has_confirmed_a_checksum() -> None:
    memory = AwsLike()
    with memory.serve() as server, client_of(server.endpoint, checksum="required") as client:
        for key in ("a", "b", "c"):
            put(client, "bucket", key, b"data")
        assert ["content-md5" in each.headers for each in memory.requests] == [True, False, False]


@pytest.mark.parametrize(
    ("code", "kind", "advice"),
    [("QuotaExceeded", S3ServiceError, "quota .* is used up"), ("UserSuspended", S3AccessDeniedError, "was suspended")],
)
def test_its_refusals_are_not_advised_as_missing_rights(code: str, kind: type[S3Exception], advice: str) -> None:
    with ScriptedServer(handler=lambda _: s3_error(403, code, "")) as server, client_of(server.endpoint) as client:
        with pytest.raises(kind, match=advice) as caught:
            put(client, "bucket", "key", b"data")
        assert "These credentials need" not in str(caught.value)
        assert isinstance(caught.value, S3AccessDeniedError) is (kind is S3AccessDeniedError)


def test_the_right_to_list_uploads_has_its_name_in_iam() -> None:
    refusal = s3_error(403, "AccessDenied", "")
    with (
        ScriptedServer(handler=lambda _: refusal) as server,
        client_of(server.endpoint) as client,
        pytest.raises(S3AccessDeniedError, match=r"need s3:ListBucketMultipartUploads\."),
    ):
        list(client.list_multipart_uploads("bucket"))


@pytest.mark.parametrize(("status", "code"), [(404, "NoSuchKey"), (412, "PreconditionFailed"), (403, "AccessDenied")])
def test_an_empty_message_leaves_no_gap(status: int, code: str) -> None:
    with ScriptedServer(handler=lambda _: s3_error(status, code, "")) as server, client_of(server.endpoint) as client:
        with client.get_object("bucket", "key") as reader, pytest.raises(S3Exception) as caught:
            reader.read()
        assert not re.search(rf"{code}: *(\.|$)", str(caught.value))
        assert ".." not in str(caught.value)
