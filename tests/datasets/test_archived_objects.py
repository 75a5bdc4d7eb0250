"""Objects in archives: an error of their own, and datasets that leave them out."""

from __future__ import annotations

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


def listing(request: ReceivedRequest) -> bytes:
    """A page that tells of restored objects if it is asked to."""
    asked = request.headers.get("x-amz-optional-object-attributes") == "RestoreStatus"
    entries = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-01-31T10:20:30.000Z</LastModified><ETag>e</ETag><Size>5</Size>"
        f"<StorageClass>{storage_class}</StorageClass>{status if asked else ''}</Contents>"
        for key, (storage_class, status) in ENTRIES.items()
    )
    return response(200, f"<ListBucketResult><EncodingType>url</EncodingType>{entries}</ListBucketResult>".encode())


def key_of(reader: S3Reader) -> str:
    return reader.key


@pytest.mark.parametrize("kind", [S3MapDataset, S3IterableDataset])
def test_datasets_leave_out_what_cannot_be_read(kind: Any, caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedServer(handler=listing) as server:
        where = {"region": "us-east-1", "endpoint": server.endpoint, "transform": key_of}
        assert list(kind.from_prefix("s3://bucket/", **where)) == list(ENTRIES)
        assert "left out" not in caplog.text
        assert list(kind.from_prefix("s3://bucket/", skip_archived=True, **where)) == ["a", "instant", "restored"]
        assert "2 archived objects below s3://bucket are left out" in caplog.text
        assert "x-amz-optional-object-attributes" not in server.requests[0].headers


def test_reading_an_archived_object_is_an_error_of_its_own() -> None:
    refusal = s3_error(403, "InvalidObjectState", "The operation is not valid for the object's storage class")
    with ScriptedServer(handler=lambda _: refusal) as server, client_of(server.endpoint) as client:
        with client.get_object("bucket", "key") as reader, pytest.raises(S3ObjectArchivedError) as caught:
            reader.read()
        assert not isinstance(caught.value, S3AccessDeniedError)
        assert "skip_archived=True" in str(caught.value)
        assert len(server.requests) == 1
