"""The gateway of Ceph 16: what it ignores, and what it writes in another way than S3."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from s3torchconnector._s3client import S3Client
from s3torchconnector._wire import _list_page, operations, parse_list_page, read_document
from tests.reading.support import MIB, PART, client_of, content, put
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
