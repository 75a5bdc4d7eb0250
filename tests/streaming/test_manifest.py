"""``S3Manifest``: listed once, filtered, stored, loaded by a node with one request."""

from __future__ import annotations

import logging
import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from s3torchconnector import S3Client, S3ClientConfig
from s3torchconnector._datasets import _chosen_objects, _manifest_object
from s3torchconnector._datasets._build import build
from s3torchconnector._datasets._chosen_objects import Filter, Listed
from s3torchconnector._datasets._origin import refuse_other
from s3torchconnector._listing_results import ObjectInfos
from s3torchconnector._types import ObjectInfo, RestoreStatus
from s3torchconnector.errors import (
    S3ChecksumError,
    S3ConfigurationError,
    S3Exception,
    S3FormatError,
    S3NotFoundError,
    S3ObjectExistsError,
)
from s3torchconnector.s3manifest import S3Manifest
from s3torchconnector.testing import S3Server
from tests.servers.moto_server import MotoServer
from tests.servers.proxy import FlipByte, RecordingProxy
from tests.streaming.support import Options, fill, options

CONTENTS = {f"train/{i}/{name}": b"x" * (i + 1) for i in range(5) for name in ("left.jpg", "right.png", "notes.txt")}


@pytest.fixture
def uri(s3_server: S3Server, bucket: str) -> str:
    fill(s3_server, bucket, {**CONTENTS, "test/0.jpg": b"test"})
    return f"s3://{bucket}"


@pytest.fixture
def where(s3_server: S3Server) -> Options:
    return options(s3_server)


def keys(manifest: S3Manifest) -> list[str]:
    return [item.key for item in manifest]


def test_a_prefix_in_key_order_with_sizes_and_etags(uri: str, where: Options) -> None:
    manifest = S3Manifest.from_prefix(f"{uri}/train/", **where)
    assert keys(manifest) == sorted(CONTENTS)
    assert manifest.total_bytes == sum(map(len, CONTENTS.values()))
    for item in (manifest[0], manifest[-1]):
        assert item.bucket == uri[5:]
        assert item.object_info is not None
        assert item.object_info.size == len(CONTENTS[item.key])
        assert item.object_info.etag.startswith('"')
    with pytest.raises(IndexError, match="out of range"):
        manifest[len(manifest)]
    assert repr(manifest).startswith(f"S3Manifest({uri}/train/: 15 objects, fingerprint ")


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"suffixes": ".jpg"}, lambda key, size: key.endswith(".jpg")),
        ({"suffixes": [".jpg", ".png"]}, lambda key, size: not key.endswith(".txt")),
        ({"glob": "train/[0-2]/*.png"}, lambda key, size: key.endswith(".png") and key < "train/3"),
        ({"min_size": 2, "max_size": 4}, lambda key, size: 2 <= size <= 4),
        ({"storage_classes": {"STANDARD"}}, lambda key, size: True),
        ({"storage_classes": {"STANDARD_IA"}}, lambda key, size: False),
        ({"predicate": lambda info: info.size == 3}, lambda key, size: size == 3),
        ({"suffixes": ".jpg", "min_size": 5}, lambda key, size: key.endswith(".jpg") and size == 5),
    ],
)
def test_filters_choose_objects(uri: str, where: Options, chosen: Options, expected: Any) -> None:
    manifest = S3Manifest.from_prefix(f"{uri}/train/", **where, **chosen)
    assert keys(manifest) == [key for key in sorted(CONTENTS) if expected(key, len(CONTENTS[key]))]


def test_several_prefixes_are_listed_in_order(uri: str, where: Options) -> None:
    manifest = S3Manifest.from_prefix([f"{uri}/train/3", f"{uri}/test/", f"{uri}/train/1"], **where)
    order = ["train/3/", "test/", "train/1/"]
    assert [key.rpartition("/")[0] + "/" for key in keys(manifest)[::3]] == [order[0], order[1], order[2]]
    with pytest.raises(S3ConfigurationError, match="lies below"):
        S3Manifest.from_prefix([f"{uri}/train/3", f"{uri}/train/"], **where)


def test_archived_objects_are_left_out_and_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The local servers have no storage classes."""
    infos = [
        ObjectInfo("a/", "e", 0, 0),
        ObjectInfo("a/1", "e", 1, 0, "GLACIER"),
        ObjectInfo("a/2", "e", 1, 0, "GLACIER", RestoreStatus(False, 2_000_000_000)),
        ObjectInfo("a/3", "e", 1, 0, "GLACIER", RestoreStatus(True)),
        ObjectInfo("a/4", "e", 1, 0, "DEEP_ARCHIVE"),
        ObjectInfo("a/5", "e", 1, 0, "GLACIER_IR"),
        ObjectInfo("a/6", "e", 1, 0),
    ]
    monkeypatch.setattr(_chosen_objects, "list_all", lambda *_, **__: iter([ObjectInfos.of(infos)]))
    client = S3Client("us-east-1")
    with caplog.at_level(logging.WARNING):
        manifest = S3Manifest(build(Listed(client, ["s3://b/a/"], Filter())), client)
    assert keys(manifest) == ["a/2", "a/5", "a/6"]
    assert manifest.archived == 3
    assert "3 objects below s3://b/a/ are archived" in caplog.text
    named = build(Listed(client, ["s3://b/a/"], Filter(storage_classes=["GLACIER"])))
    assert [row.key for row in named] == ["a/1", "a/2", "a/3"]


def test_named_objects_keep_their_order(uri: str, where: Options) -> None:
    names = ["train/3/left.jpg", "test/0.jpg", "train/3/left.jpg"]
    manifest = S3Manifest.from_objects([f"{uri}/{name}" for name in names], **where)
    assert keys(manifest) == names
    assert [manifest[i].object_info for i in range(2)] == [
        item.object_info for name in names[:2] for item in S3Manifest.from_prefix(f"{uri}/{name}", **where)
    ]
    with pytest.raises(S3NotFoundError, match="train/9"):
        S3Manifest.from_objects([f"{uri}/train/9"], **where)
    with pytest.raises(ValueError, match="names a bucket but no object"):
        S3Manifest.from_objects(uri, **where)


def test_saved_once_and_loaded_with_one_get(uri: str, where: Options, proxy: RecordingProxy) -> None:
    manifest = S3Manifest.from_prefix(f"{uri}/train/", **where)
    manifest.save(f"{uri}/manifests/1")
    with pytest.raises(S3ObjectExistsError):
        manifest.save(f"{uri}/manifests/1")
    manifest.filter(lambda info: info.size > 1).save(f"{uri}/manifests/1", overwrite=True)
    loaded = S3Manifest.load(f"{uri}/manifests/1", **{**where, "endpoint": proxy.endpoint})
    assert keys(loaded) == [key for key in sorted(CONTENTS) if len(CONTENTS[key]) > 1]
    assert [each.method for each in proxy.exchanges] == ["GET"]
    assert (loaded.created, loaded.fingerprint) == (manifest.created, manifest.filter(_more_than_one).fingerprint)


def _more_than_one(info: ObjectInfo) -> bool:
    return info.size > 1


def test_a_large_manifest_is_fetched_once(bucket: str, where: Options, proxy: RecordingProxy) -> None:
    many = build(_rows(100_000))
    config = S3ClientConfig(part_size=5 * 2**20)
    S3Manifest(many, S3Manifest.from_prefix(f"s3://{bucket}/none/", **where)._client).save(f"s3://{bucket}/m")
    loaded = S3Manifest.load(f"s3://{bucket}/m", **{**where, "endpoint": proxy.endpoint}, s3client_config=config)
    assert (len(loaded), loaded.fingerprint) == (100_000, many.header.fingerprint)
    assert len(proxy.of("GET")) > 1
    assert sum(each.body_bytes for each in proxy.of("GET")) == len(many.memory.view)


def _rows(count: int) -> Any:
    from s3torchconnector._datasets._rows import Row

    return (Row("b", f"some/prefix/{i:012}.jpg", i, f'"{i:032x}"') for i in range(count))


def test_a_damaged_manifest_is_named(uri: str, where: Options) -> None:
    manifest = S3Manifest.from_prefix(f"{uri}/train/", **where)
    data = bytes(manifest._rows.memory.view)
    for i, wrong in enumerate((data[:-1], data[:200], b"not a manifest", b"")):
        stream = manifest._client.put_object(uri[5:], f"manifests/{i}")
        stream.write(wrong)
        stream.close()
        with pytest.raises(S3FormatError, match=f"{uri}/manifests/{i} cannot be used as a manifest"):
            S3Manifest.load(f"{uri}/manifests/{i}", **where)
    with pytest.raises(S3NotFoundError):
        S3Manifest.load(f"{uri}/manifests/9", **where)


def load_in(directory: str, uri: str, where: Options) -> tuple[int, str]:
    return len(S3Manifest.load(uri, **where, directory=directory)), uri


def test_the_processes_of_a_node_fetch_it_once(uri: str, where: Options, proxy: RecordingProxy, tmp_path: Path) -> None:
    S3Manifest.from_prefix(f"{uri}/train/", **where).save(f"{uri}/manifests/1")
    through = {**where, "endpoint": proxy.endpoint}
    arguments = [(str(tmp_path / "node"), f"{uri}/manifests/1", through)] * 4
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert pool.starmap(load_in, arguments) == [(15, f"{uri}/manifests/1")] * 4
    assert len(proxy.of("GET")) == 1
    assert [name.endswith(".s3manifest") for name in os.listdir(tmp_path / "node")] == [True]


def test_a_replaced_manifest_is_fetched_again(uri: str, where: Options, tmp_path: Path) -> None:
    manifest = S3Manifest.from_prefix(f"{uri}/train/", **where)
    manifest.save(f"{uri}/manifests/1")
    assert load_in(str(tmp_path), f"{uri}/manifests/1", where)[0] == 15
    manifest.filter(_more_than_one).save(f"{uri}/manifests/1", overwrite=True)
    assert load_in(str(tmp_path), f"{uri}/manifests/1", where)[0] == 12


def test_a_fetch_that_fails_leaves_no_file(uri: str, where: Options, proxy: RecordingProxy, tmp_path: Path) -> None:
    S3Manifest.from_prefix(f"{uri}/train/", **where).save(f"{uri}/manifests/1")
    proxy.misbehave = lambda request: FlipByte(40) if request.method == "GET" else None
    with pytest.raises(S3ChecksumError):
        load_in(str(tmp_path), f"{uri}/manifests/1", {**where, "endpoint": proxy.endpoint})
    assert os.listdir(tmp_path) == []
    assert load_in(str(tmp_path), f"{uri}/manifests/1", where)[0] == 15


def test_what_a_killed_process_left_is_no_manifest(uri: str, where: Options, tmp_path: Path) -> None:
    S3Manifest.from_prefix(f"{uri}/train/", **where).save(f"{uri}/manifests/1")
    load_in(str(tmp_path), f"{uri}/manifests/1", where)
    [path] = tmp_path.iterdir()
    partial = path.with_name(f"{path.name}.partial")
    path.rename(partial)
    partial.write_bytes(b"half" * 1000)
    assert load_in(str(tmp_path), f"{uri}/manifests/1", where)[0] == 15
    assert list(tmp_path.iterdir()) == [path]


def test_shared_lists_once_and_loads_from_then_on(uri: str, where: Options, proxy: RecordingProxy) -> None:
    through = {**where, "endpoint": proxy.endpoint}
    first = S3Manifest.shared(f"{uri}/train/", at=f"{uri}/manifests/s", suffixes=".jpg", **through)
    assert len(first) == 5
    proxy.exchanges.clear()
    second = S3Manifest.shared(f"{uri}/train/", at=f"{uri}/manifests/s", **through)
    assert second.fingerprint == first.fingerprint
    assert [each.method for each in proxy.exchanges] == ["HEAD", "GET"]


def test_an_empty_manifest_is_not_shared(uri: str, where: Options) -> None:
    at = f"{uri}/manifests/e"
    with pytest.raises(S3ConfigurationError, match=f"nothing in {uri}/trian/ .*{at}.*keys are case-sensitive"):
        S3Manifest.shared(f"{uri}/trian/", at=at, **where)
    with pytest.raises(S3ConfigurationError, match="filters may let nothing pass"):
        S3Manifest.shared(f"{uri}/train/", at=at, **where, suffixes=".gif")
    assert not _manifest_object.exists(S3Client(**where), at)
    S3Manifest.from_prefix(f"{uri}/train/", **where, suffixes=".gif").save(at)  # as by hand
    with pytest.raises(S3ConfigurationError, match=f"manifest at {at} has no samples: delete it"):
        S3Manifest.shared(f"{uri}/train/", at=at, **where)


def test_a_manifest_of_something_else_is_not_shared(uri: str, where: Options) -> None:
    at = f"{uri}/manifests/o"
    S3Manifest.shared([f"{uri}/train/", f"{uri}/test/"], at=at, **where)
    for asked in ([f"{uri}/test/", f"{uri}/train/"], {f"{uri}/train/": 1, f"S3://{uri[5:]}/test/": 2}):
        assert len(S3Manifest.shared(asked, at=at, suffixes=".jpg", **where)) == 16  # filters are not known
    for other in (f"{uri}/train/", [f"{uri}/train/", f"{uri}/test"], ["s3://b/train/", "s3://b/test/"]):
        with pytest.raises(
            S3ConfigurationError, match=f"{at} was made of {uri}/train/, {uri}/test/, and not of .*: delete it"
        ):
            S3Manifest.shared(other, at=at, **where)
    made = S3Manifest.shared(f"{uri}/train/", at=at, make=lambda *_, **__: S3Manifest.load(at, **where), **where)
    assert len(made) == 16  # of functions of the program, nothing is known
    S3Manifest.from_objects([f"{uri}/test/0.jpg"], **where).save(at, overwrite=True)
    assert len(S3Manifest.shared(f"{uri}/train/", at=at, **where)) == 1


@pytest.mark.parametrize(
    ("maker", "one", "other"),
    [
        ("from_tar", "s3://b/train-{0..1}.tar", ["s3://b/train-1.tar", "s3://b/train-0.tar"]),
        ("from_prefix", "s3://arn:aws:s3:us-west-2:123456789012:accesspoint/ap/a/", ["s3://bucket/a/"]),
        ("from_prefix", "s3://ap-hash-s3alias/a/", ["s3://bucket/a/"]),
        ("from_prefix", "s3://reports/1/manifest.json", ["s3://bucket/a/"]),  # it may be of that bucket
        ("from_mds", "s3://b/mds/", ["s3://b/mds/index.json"]),
        ("from_mds", "s3://b", ["s3://b/index.json"]),
        (None, "s3://b/1/", ["s3://b/2/"]),
    ],
)
def test_what_may_be_the_same_is_not_refused(maker: str | None, one: str, other: list[str]) -> None:
    refuse_other(build(_rows(1), [one]), other, "s3://b/m", maker)
    refuse_other(build(_rows(1), other), one, "s3://b/m", maker)


def test_a_refusal_names_no_more_than_it_can() -> None:
    with pytest.raises(S3ConfigurationError, match="of s3://b/0 and 3 others, and not of s3://b/1/: "):
        refuse_other(build(_rows(1), [f"s3://b/{i}" for i in range(4)]), "s3://b/1/", "s3://b/m", "from_prefix")


def test_many_that_begin_together_get_the_same(
    moto_server: MotoServer, moto_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them sees a manifest first, so that the condition of the PUT decides."""
    where: Options = {"region": "us-east-1", "endpoint": moto_server.endpoint}
    base = S3Manifest.from_prefix(f"s3://{moto_bucket}/none/", **where)
    for i in range(4):
        base.save(f"s3://{moto_bucket}/data/{i}")
    monkeypatch.setattr(_manifest_object, "exists", lambda client, uri: False)

    def share(i: int) -> str:
        at = f"s3://{moto_bucket}/manifests/1"
        return S3Manifest.shared(f"s3://{moto_bucket}/data/", at=at, suffixes=str(i), **where).fingerprint

    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(share, range(4)))) == 1


def test_a_split_is_a_partition_that_stays(uri: str, where: Options) -> None:
    manifest = S3Manifest(build(_rows(2_000)), S3Manifest.from_prefix(f"{uri}/none/", **where)._client)
    train, test = manifest.split(0.9)
    assert sorted(keys(train) + keys(test)) == keys(manifest)
    assert 0.86 < len(train) / len(manifest) < 0.94
    fewer = manifest.filter(lambda info: info.size % 2 == 0).split(0.9)
    assert set(keys(fewer[0])) <= set(keys(train))
    assert keys(manifest.split(0.9, seed=1)[0]) != keys(train)
    assert [len(part) for part in manifest.split(1)] == [2_000, 0]
    with pytest.raises(ValueError, match="fraction"):
        manifest.split(1.5)


def test_an_empty_prefix_is_an_empty_manifest(uri: str, where: Options, caplog: pytest.LogCaptureFixture) -> None:
    manifest = S3Manifest.from_prefix([f"{uri}/nothing/", f"{uri}/none/"], **where)
    assert [record.getMessage() for record in caplog.records] == [
        f"there are no samples below {uri}/{name}/: prefixes end with /, keys are case-sensitive"
        for name in ("nothing", "none")
    ]
    assert (len(manifest), manifest.total_bytes, keys(manifest)) == (0, 0, [])
    manifest.save(f"{uri}/manifests/empty")
    assert len(S3Manifest.load(f"{uri}/manifests/empty", **where)) == 0
    with pytest.raises(S3Exception):
        S3Manifest.from_prefix("s3://no-such-bucket/", **where)
