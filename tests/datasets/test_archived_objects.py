"""Objects in archives: a separate error, and datasets that leave them out."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from s3torchconnector import S3IterableDataset, S3MapDataset
from s3torchconnector.errors import S3AccessDeniedError, S3ObjectArchivedError
from s3torchconnector.s3reader import S3Reader
from tests.reading.support import client_of
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.scripted import ScriptedServer

pytestmark = pytest.mark.usefixtures("s3_server")  # for its keys
ENTRIES = {
    "a": ("STANDARD", ""),
    "archived": ("GLACIER", ""),
    "deep": ("DEEP_ARCHIVE", "<RestoreStatus><IsRestoreInProgress>true</IsRestoreInProgress></RestoreStatus>"),
    "instant": ("GLACIER_IR", ""),
    "restored": (
        "GLACIER",
        "<RestoreStatus><IsRestoreInProgress>false</IsRestoreInProgress>"
        "<RestoreExpiryDate>2099-01-31T10:20:30.000Z</RestoreExpiryDate></RestoreStatus>",
    ),
}

ENTRY = (
    "<Contents><Key>{}</Key><LastModified>2026-01-31T10:20:30.000Z</LastModified><ETag>e</ETag><Size>5</Size>"
    "<StorageClass>{}</StorageClass>{}</Contents>"
)


def listing(request: ReceivedRequest) -> bytes:
    """A page that contains the restore status if it is requested."""
    asked = request.headers.get("x-amz-optional-object-attributes") == "RestoreStatus"
    entries = "".join(
        ENTRY.format(key, storage_class, status if asked else "") for key, (storage_class, status) in ENTRIES.items()
    )
    return response(200, f"<ListBucketResult><EncodingType>url</EncodingType>{entries}</ListBucketResult>".encode())


def key_of(reader: S3Reader) -> str:
    return reader.key


@pytest.mark.parametrize("kind", [S3MapDataset, S3IterableDataset])
def test_datasets_leave_out_unreadable_objects(kind: Any, caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedServer(handler=listing) as server:
        where = {"region": "us-east-1", "endpoint": server.endpoint, "transform": key_of}
        assert list(kind.from_prefix("s3://bucket/", **where)) == list(ENTRIES)
        assert "left out" not in caplog.text
        assert list(kind.from_prefix("s3://bucket/", skip_archived=True, **where)) == ["a", "instant", "restored"]
        assert "2 archived objects below s3://bucket are left out" in caplog.text
        assert "x-amz-optional-object-attributes" not in server.requests[0].headers


REFUSAL = "The operation is not valid for the object's "


def tier_refusal(request: ReceivedRequest) -> bytes:
    """S3's answers about an object that Intelligent-Tiering has archived, as the API reference describes them."""
    if request.method == "HEAD":
        headers = {"x-amz-storage-class": "INTELLIGENT_TIERING", "x-amz-archive-status": "DEEP_ARCHIVE_ACCESS"}
        return response(200, b"", {**headers, "ETag": '"e"'})
    document = (
        f"<Error><Code>InvalidObjectState</Code><Message>{REFUSAL}access tier</Message>"
        "<StorageClass>INTELLIGENT_TIERING</StorageClass><AccessTier>DEEP_ARCHIVE_ACCESS</AccessTier></Error>"
    )
    return response(403, document.encode())


def test_a_tier_that_archives_is_named_by_reads_and_heads() -> None:
    with ScriptedServer(handler=tier_refusal) as server, client_of(server.endpoint) as client:
        with client.get_object("bucket", "key") as reader, pytest.raises(S3ObjectArchivedError) as caught:
            reader.read()
        error = pickle.loads(pickle.dumps(caught.value))
        assert (error.storage_class, error.access_tier) == ("INTELLIGENT_TIERING", "DEEP_ARCHIVE_ACCESS")
        assert "in the archive tier DEEP_ARCHIVE_ACCESS" in str(error)
        assert "skip_archived=True does not leave such objects out, since listings do not show this" in str(error)
        head = client.head_object("bucket", "key")
        assert (head.storage_class, head.archive_status) == ("INTELLIGENT_TIERING", "DEEP_ARCHIVE_ACCESS")


def test_datasets_cannot_leave_out_objects_archived_by_a_tier() -> None:
    """The listing of such an object looks like that of any other."""
    entry = ENTRY.format("key", "INTELLIGENT_TIERING", "")
    page = f"<ListBucketResult><EncodingType>url</EncodingType>{entry}</ListBucketResult>".encode()

    def handle(request: ReceivedRequest) -> bytes:
        return response(200, page) if "list-type" in request.query else tier_refusal(request)

    with ScriptedServer(handler=handle) as server:
        where: dict[str, Any] = {"region": "us-east-1", "endpoint": server.endpoint, "transform": S3Reader.read}
        dataset = S3MapDataset.from_prefix("s3://bucket/", skip_archived=True, **where)
        assert len(dataset) == 1
        with pytest.raises(S3ObjectArchivedError, match="listings do not show"):
            dataset[0]


def test_reading_an_archived_object_is_a_separate_error() -> None:
    refusal = s3_error(403, "InvalidObjectState", f"{REFUSAL}storage class")
    with ScriptedServer(handler=lambda _: refusal) as server, client_of(server.endpoint) as client:
        with client.get_object("bucket", "key") as reader, pytest.raises(S3ObjectArchivedError) as caught:
            reader.read()
        assert not isinstance(caught.value, S3AccessDeniedError)
        assert "skip_archived=True" in str(caught.value)
        assert len(server.requests) == 1
