"""Directory buckets: any prefix can be listed, and ranks agree on what each of them reads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from s3torchconnector import S3IterableDataset, S3Manifest, S3MapDataset
from s3torchconnector._sharding import Place, shard
from s3torchconnector._wire import operations, read_document
from s3torchconnector.s3reader import S3Reader
from tests.reading.support import client_of, put
from tests.servers.stand_ins import Express

pytestmark = pytest.mark.usefixtures("s3_server")  # for its keys
KEYS = [f"train/shard-{number:03}.tar" for number in range(40)] + ["train/other", "val/shard-000.tar", "top"]
BUCKET = Express.bucket


@pytest.fixture
def endpoint() -> Iterator[str]:
    memory = Express()
    with memory.serve() as server:
        with client_of(server.endpoint) as client:
            for key in KEYS:
                put(client, BUCKET, key, key.encode())
        yield server.endpoint


@pytest.mark.parametrize("prefix", ["", "t", "train/", "train/sh", "train/shard-01", "train/nothing", "val/shard-0"])
def test_any_prefix_can_be_listed(endpoint: str, prefix: str) -> None:
    expected = sorted(key for key in KEYS if key.startswith(prefix))
    with client_of(endpoint) as client:
        assert sorted(key for page in client.list_all(BUCKET, prefix) for key in page.keys) == expected
        pages = client.list_objects(BUCKET, prefix, max_keys=7)
        assert sorted(info.key for page in pages for info in page.object_info) == expected
        [page] = client.list_objects(BUCKET, prefix, "/")
        found = {prefix + key[len(prefix) :].partition("/")[0] + "/" for key in expected if "/" in key[len(prefix) :]}
        assert set(page.common_prefixes) == found


def test_uploads_below_any_prefix_can_be_listed(endpoint: str) -> None:
    with client_of(endpoint) as client:
        for key in ("run/a", "run/b"):
            client._runtime().caller.call(operations.create_multipart_upload(BUCKET, key), read_document)
        assert [upload.key for upload in client.list_multipart_uploads(BUCKET, "run/b")] == ["run/b"]


def key_of(reader: S3Reader) -> str:
    return reader.key


def test_ranks_agree_on_the_samples(endpoint: str) -> None:
    where = {"region": "us-east-1", "endpoint": endpoint, "transform": key_of}
    datasets = [S3MapDataset.from_prefix(f"s3://{BUCKET}/train/sh", **where) for _ in range(2)]  # type: ignore[arg-type]
    assert list(datasets[0]) == list(datasets[1]) == sorted(datasets[0])
    iterable = S3IterableDataset.from_prefix(f"s3://{BUCKET}/train/sh", enable_sharding=True, **where)  # type: ignore[arg-type]
    shares = [
        [item.key for item in shard(iterable._source.objects_in_order(), Place(rank, 2, 0, 1))] for rank in range(2)
    ]
    assert sorted(shares[0] + shares[1]) == KEYS[:40]
    assert list(iterable) == KEYS[:40]


def test_manifests_of_directory_buckets_are_in_key_order(endpoint: str) -> None:
    """Without asking which archived objects are restored, which directory buckets refuse to be asked."""
    manifest = S3Manifest.from_prefix(f"s3://{BUCKET}/train/sh", region="us-east-1", endpoint=endpoint)
    assert [item.key for item in manifest] == KEYS[:40]
    dataset = S3IterableDataset.from_prefix(
        f"s3://{BUCKET}/val/", region="us-east-1", endpoint=endpoint, transform=key_of, skip_archived=True
    )
    assert list(dataset) == ["val/shard-000.tar"]
