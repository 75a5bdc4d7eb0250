"""Samples of archives and groups, from a cache: ranges are separate entries, and wrong bytes do not stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from s3torchconnector import S3Cache, S3ClientConfig, S3DataLoader, S3Manifest, S3StreamingDataset
from s3torchconnector.errors import S3ChecksumError
from s3torchconnector.testing import S3Server
from tests.cache.support import MIB
from tests.servers.http_messages import ReceivedRequest
from tests.servers.proxy import FlipByte, RecordingProxy, first
from tests.shards.support import fill, tar

FILES = {f"{i:02}.{name}": f"{i} {name} ".encode() * (i + 1) for i in range(20) for name in ("jpg", "txt")}


@pytest.fixture
def where(s3_server: S3Server, bucket: str, proxy: RecordingProxy) -> dict[str, Any]:
    fill(s3_server, bucket, {"shards/a.tar": tar(FILES), **{f"files/{key}": data for key, data in FILES.items()}})
    # A client of its own: others have not opened connections for it.
    config = S3ClientConfig(part_size=5 * MIB + id(proxy) % 1000)
    return {"region": s3_server.region, "endpoint": proxy.endpoint, "s3client_config": config}


@pytest.fixture
def cache(tmp_path: Path) -> S3Cache:
    return S3Cache(tmp_path, 16 * MIB)


def samples_of(loader: Any) -> dict[str, tuple[bytes, bytes]]:
    return {sample["__key__"]: (sample["jpg"], sample["txt"]) for batch in loader for sample in batch}


@pytest.mark.parametrize("kind", ["archive", "group"])
def test_the_second_epoch_requests_nothing(
    where: dict[str, Any], bucket: str, proxy: RecordingProxy, cache: S3Cache, kind: str
) -> None:
    if kind == "archive":
        manifest = S3Manifest.from_tar(f"s3://{bucket}/shards/a.tar", **where)
    else:
        manifest = S3Manifest.from_prefix(f"s3://{bucket}/files/", **where).group_by_stem()
    prefix = "" if kind == "archive" else "files/"
    expected = {f"{prefix}{i:02}": (FILES[f"{i:02}.jpg"], FILES[f"{i:02}.txt"]) for i in range(20)}
    loader = S3DataLoader(S3StreamingDataset(manifest, batch_size=4, cache=cache), collate_fn=list)
    assert samples_of(loader) == expected
    assert loader.stats()["cache_hits"] == 0
    proxy.exchanges.clear()
    assert samples_of(loader) == expected
    assert proxy.of("GET") == []
    assert loader.stats()["cache_hits"] == (20 if kind == "archive" else 40)


def test_wrong_bytes_of_an_archive_do_not_stay_in_the_cache(
    where: dict[str, Any], bucket: str, proxy: RecordingProxy, cache: S3Cache
) -> None:
    manifest = S3Manifest.from_tar(f"s3://{bucket}/shards/a.tar", **where)
    dataset = S3StreamingDataset(manifest, shuffle=False, cache=cache, look_ahead=0)

    def is_get(request: ReceivedRequest) -> bool:
        return request.method == "GET"

    proxy.misbehave = first(1, FlipByte(1), when=is_get)
    assert next(iter(dataset))["jpg"] == FILES["00.jpg"]
    cache.clear()
    proxy.misbehave = first(2, FlipByte(1), when=is_get)
    with pytest.raises(S3ChecksumError):
        next(iter(dataset))
    dataset.set_epoch(0)
    assert next(iter(dataset))["jpg"] == FILES["00.jpg"]
    proxy.exchanges.clear()
    dataset.set_epoch(0)
    assert next(iter(dataset))["jpg"] == FILES["00.jpg"]
    assert proxy.of("GET") == []
