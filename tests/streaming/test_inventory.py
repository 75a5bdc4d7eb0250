"""Manifests of S3 Inventory reports, in the documented formats, equal to those of a listing."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote_plus

import pyarrow
import pytest
from pyarrow import parquet

from s3torchconnector import S3Client, S3Manifest, S3Reader, S3StreamingDataset
from s3torchconnector.errors import S3FormatError
from s3torchconnector.testing import S3Server
from tests.datasets.contract import fill
from tests.streaming.support import options

KEYS = ["a b/+1.jpg", "a b/é.jpg", "a b/z.txt", 'c,d/"quoted".jpg', "c/%41.jpg", "ÿ/2.jpg"]
FIELDS = [
    "Bucket", "Key", "VersionId", "IsLatest", "IsDeleteMarker", "Size", "LastModifiedDate", "ETag", "StorageClass",
    "IntelligentTieringAccessTier",
]  # fmt: skip
PARQUET = {
    "bucket": pyarrow.string(), "key": pyarrow.string(), "version_id": pyarrow.string(), "is_latest": pyarrow.bool_(),
    "is_delete_marker": pyarrow.bool_(), "size": pyarrow.int64(), "last_modified_date": pyarrow.timestamp("ms"),
    "e_tag": pyarrow.string(), "storage_class": pyarrow.string(), "intelligent_tiering_access_tier": pyarrow.string(),
}  # fmt: skip
SCHEMA = "message s3.inventory { required binary bucket (STRING); required binary key (STRING); optional binary " + (
    "version_id (STRING); optional boolean is_latest; optional boolean is_delete_marker; optional int64 size; optional "
    "int64 last_modified_date (TIMESTAMP(MILLIS,true)); optional binary e_tag (STRING); optional binary storage_class "
    "(STRING); optional binary intelligent_tiering_access_tier (STRING);}"
)
WHEN = datetime(2026, 11, 6, 21, 32, tzinfo=timezone.utc)
Row = list[Any]


@pytest.fixture(scope="module")
def listed(s3_server: S3Server) -> S3Manifest:
    for bucket in ("inventoried", "reports"):
        s3_server.make_bucket(bucket)
    fill(s3_server, "inventoried", {key: key.encode() for key in KEYS})
    return S3Manifest.from_prefix("s3://inventoried", **options(s3_server))


def put(server: S3Server, objects: dict[str, bytes]) -> None:
    with S3Client(server.region, endpoint=server.endpoint) as client:
        for key, data in objects.items():
            with client.put_object("reports", key) as writer:
                writer.write(data)


def rows_of(manifest: S3Manifest) -> list[Row]:
    """The rows of a report on a bucket with versions: in no order, with old ones and deleted ones."""
    rows = [
        ["inventoried", each.key, "v2", True, False, each.object_info.size, WHEN, each.object_info.etag.strip('"'),
         "STANDARD", "FREQUENT"]
        for each in manifest
    ]  # fmt: skip
    old = [*rows[0][:2], "v1", False, False, 1, WHEN, "0" * 32, "STANDARD", "FREQUENT"]
    deleted = ["inventoried", "gone.jpg", "v3", True, True, None, WHEN, None, None, None]
    archived = ["inventoried", "ice.jpg", "v4", True, False, 5, WHEN, "1" * 32, "DEEP_ARCHIVE", None]
    tiered = ["inventoried", "cold.jpg", "v5", True, False, 5, WHEN, "2" * 32, "INTELLIGENT_TIERING", "ARCHIVE"]
    return [*rows[3:], old, deleted, archived, tiered, *rows[:3]]


def as_csv(rows: list[Row], fields: list[str] = FIELDS) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    for row in rows:
        values = dict(zip(FIELDS, row, strict=True))
        values["Key"] = quote_plus(values["Key"], safe="/")
        values["LastModifiedDate"] = "2026-11-06T21:32:00.000Z"
        shown = [str(value).lower() if isinstance(value, bool) else value for value in map(values.get, fields)]
        writer.writerow(["" if value is None else value for value in shown])
    return gzip.compress(text.getvalue().encode())


def as_parquet(rows: list[Row]) -> bytes:
    columns = zip(*rows, strict=True)
    table = pyarrow.table(
        {name: pyarrow.array(column, kind) for (name, kind), column in zip(PARQUET.items(), columns, strict=True)}
    )
    file = io.BytesIO()
    parquet.write_table(table, file)
    return file.getvalue()


def store(server: S3Server, name: str, lists: list[bytes], **changes: Any) -> str:
    """Store a report; return the URI of its manifest.json."""
    folder = f"inventoried/{name}"
    manifest = {
        "sourceBucket": "inventoried", "destinationBucket": "arn:aws:s3:::reports", "version": "2016-11-30",
        "creationTimestamp": "1794000000000", "fileFormat": "CSV", "fileSchema": ", ".join(FIELDS),
        "files": [
            {"key": f"{folder}/data/{i}", "size": len(data), "MD5checksum": hashlib.md5(data).hexdigest()}
            for i, data in enumerate(lists)
        ],
        **changes,
    }  # fmt: skip
    objects = {f"{folder}/data/{i}": data for i, data in enumerate(lists)}
    put(server, {**objects, f"{folder}/manifest.json": json.dumps(manifest).encode()})
    return f"s3://reports/{folder}/manifest.json"


def in_csv(server: S3Server, rows: list[Row]) -> str:
    return store(server, "csv", [as_csv(rows[:4]), as_csv(rows[4:])])


def in_parquet(server: S3Server, rows: list[Row]) -> str:
    files = [as_parquet(rows[:4]), as_parquet(rows[4:])]
    return store(server, "parquet", files, fileFormat="Parquet", fileSchema=SCHEMA)


@pytest.mark.parametrize("stored", [in_csv, in_parquet])
def test_a_report_gives_the_same_objects_as_a_listing(
    stored: Callable[..., str], s3_server: S3Server, listed: S3Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    uri = stored(s3_server, rows_of(listed))
    manifest = S3Manifest.from_inventory(uri, **options(s3_server))
    assert manifest.fingerprint == listed.fingerprint
    assert [each.key for each in manifest] == sorted(KEYS, key=str.encode)
    assert (manifest.archived, manifest.created) == (2, 1794000000)
    assert "2 objects of the report" in caplog.text
    dataset = S3StreamingDataset(manifest, transform=S3Reader.read)
    assert sorted(dataset) == sorted(key.encode() for key in KEYS)


@pytest.mark.parametrize("stored", [in_csv, in_parquet])
def test_a_report_is_filtered(stored: Callable[..., str], s3_server: S3Server, listed: S3Manifest) -> None:
    uri, times = stored(s3_server, rows_of(listed)), set()
    manifest = S3Manifest.from_inventory(
        uri, prefix="a b/", suffixes=".jpg", predicate=lambda info: times.add(info.last_modified) is None,
        **options(s3_server),
    )  # fmt: skip
    assert [each.key for each in manifest] == ["a b/+1.jpg", "a b/é.jpg"]
    assert times == {int(WHEN.timestamp())}


def test_a_report_of_latest_versions_has_fewer_fields(s3_server: S3Server, listed: S3Manifest) -> None:
    fields = ["Bucket", "Key", "Size", "ETag"]
    rows = [row for row in rows_of(listed) if row[1] in KEYS and row[3]]
    uri = store(s3_server, "few", [as_csv(rows, fields)], fileSchema=", ".join(fields))
    assert S3Manifest.from_inventory(uri, **options(s3_server)).fingerprint == listed.fingerprint


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-9], "file of an S3 Inventory report"),
        (lambda data: b"not gzip", "file of an S3 Inventory report"),
        (lambda data: data + bytes(100), "size or MD5"),
    ],
)
def test_a_damaged_file_is_an_error(
    damage: Callable[[bytes], bytes], message: str, s3_server: S3Server, listed: S3Manifest
) -> None:
    data = as_csv(rows_of(listed))
    uri = store(s3_server, "damaged", [data])
    put(s3_server, {"inventoried/damaged/data/0": damage(data)})
    with pytest.raises(S3FormatError, match=message):
        S3Manifest.from_inventory(uri, **options(s3_server))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fileFormat": "ORC"}, "choose CSV or Parquet"),
        ({"fileSchema": "Bucket, Key, Size"}, "does not tell the etag"),
        ({"files": [{"key": "x"}]}, r"is not the manifest.json .*'size'"),
        ({"creationTimestamp": "today"}, r"is not the manifest.json"),
    ],
)
def test_what_cannot_be_read_says_why(changes: dict[str, Any], message: str, s3_server: S3Server, listed: Any) -> None:
    uri = store(s3_server, "wrong", [as_csv(rows_of(listed))], **changes)
    with pytest.raises(S3FormatError, match=message):
        S3Manifest.from_inventory(uri, **options(s3_server))


def test_an_object_that_is_listed_twice_is_an_error(s3_server: S3Server, listed: S3Manifest) -> None:
    rows = rows_of(listed)
    with pytest.raises(S3FormatError, match="twice"):
        S3Manifest.from_inventory(in_csv(s3_server, [*rows, rows[0]]), **options(s3_server))


def test_without_pyarrow_the_error_names_the_extra(
    s3_server: S3Server, listed: S3Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"'\.\[parquet\]'"):
        S3Manifest.from_inventory(in_parquet(s3_server, rows_of(listed)), **options(s3_server))
