"""``s3torch manifest``: made, shown, compared with each other and with what is in the bucket now."""

from __future__ import annotations

import io
import json
import random
import tarfile
from pathlib import Path
from typing import Any

import pytest

from s3torchconnector import S3Client, S3Manifest, S3WriteOptions
from s3torchconnector._cli._manifests._pinned import Difference, Pinned, differences
from s3torchconnector._cli._manifests._verify import problems_of
from s3torchconnector._datasets._build import build
from s3torchconnector._datasets._rows import Row, Rows
from s3torchconnector.testing import S3Server
from tests.cli.support import call
from tests.servers.moto_server import MotoServer
from tests.servers.proxy import RecordingProxy

_REGION = "us-east-1"


@pytest.fixture
def folder(s3_server: S3Server, bucket: str) -> Path:
    """The files of a bucket: ten images below im/, and two objects beside it."""
    folder = s3_server.folder / bucket
    (folder / "im/a").mkdir(parents=True)
    for number in range(10):
        (folder / f"im/{'a/' if number < 3 else ''}{number}.jpg").write_bytes(bytes(100 + number))
    (folder / "im/notes.txt").write_bytes(b"12")
    (folder / "other").write_bytes(b"1")
    return folder


def _call(*arguments: str, status: int = 0) -> str:
    done = call("manifest", *arguments)
    assert done.returncode == status, done.stderr
    return done.stdout


def _lines(*arguments: str, status: int = 0) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _call(*arguments, "--json", status=status).splitlines()]


def _put(bucket: str, key: str, data: bytes) -> None:
    with S3Client(_REGION) as client, client.put_object(bucket, key) as writer:
        writer.write(data)


def _created(bucket: str, *options: str) -> str:
    uri = f"s3://{bucket}/manifests/m"
    _call("create", f"s3://{bucket}/im/", "--to", uri, *options)
    return uri


def test_an_empty_prefix_is_reported_once(bucket: str, caplog: pytest.LogCaptureFixture) -> None:
    done = call("manifest", "create", f"s3://{bucket}/none/", "--to", f"s3://{bucket}/m", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(caplog.messages) == 1
    assert f"s3://{bucket}/none/" in caplog.messages[0]


# -- create and info --------------------------------------------------------------------------------------------------


def test_a_manifest_is_made_with_filters(folder: Path, bucket: str) -> None:
    uri = f"s3://{bucket}/manifests/m"
    filters = ("--suffix=.jpg", "--glob=im/[!a]*", "--min-size=105", "--max-size=108B", "--storage-class=STANDARD")
    [facts] = _lines("create", f"s3://{bucket}/im/", "--to", uri, *filters)
    assert (facts["samples"], facts["stored"]) == (4, True)
    manifest = S3Manifest.load(uri, region=_REGION)
    assert [item.key for item in manifest] == [f"im/{number}.jpg" for number in (5, 6, 7, 8)]
    assert facts["fingerprint"] == manifest.fingerprint


def test_a_manifest_is_not_replaced_by_accident(folder: Path, bucket: str) -> None:
    uri = _created(bucket)
    done = call("manifest", "create", f"s3://{bucket}/im/a/", "--to", uri)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert not _lines("create", f"s3://{bucket}/im/a/", "--to", uri, "--dry-run")[0]["stored"]
    assert len(S3Manifest.load(uri, region=_REGION)) == 11
    _call("create", f"s3://{bucket}/im/a/", "--to", uri, "--overwrite")
    assert len(S3Manifest.load(uri, region=_REGION)) == 3


def test_a_manifest_of_archives_and_of_named_objects(folder: Path, bucket: str) -> None:
    with tarfile.open(folder / "im/train.tar", "w") as tar:
        for name in ("1.jpg", "1.txt", "2.jpg"):
            member = tarfile.TarInfo(name)
            member.size = 5
            tar.addfile(member, io.BytesIO(b"12345"))
    [facts] = _lines("create", f"s3://{bucket}/im/", "--from=tar", "--no-index", "--to", f"s3://{bucket}/m/tar")
    assert (facts["samples"], facts["samples_are"], facts["objects"], facts["total_bytes"]) == (2, "archives", 1, 15)
    names = [f"s3://{bucket}/im/9.jpg", f"s3://{bucket}/other"]
    [facts] = _lines("create", *names, "--from=objects", "--to", f"s3://{bucket}/m/named")
    assert (facts["samples"], facts["total_bytes"]) == (2, 110)


def test_options_of_another_source_are_wrong_usage(bucket: str) -> None:
    for options in (["--from=tar", "--suffix=.jpg"], ["--column=text"], ["--to", f"s3://{bucket}/"]):
        done = call("manifest", "create", f"s3://{bucket}/", f"--to=s3://{bucket}/m", *options)
        assert (done.returncode, done.stdout) == (2, ""), options


def test_a_manifest_is_shown(folder: Path, bucket: str) -> None:
    uri = _created(bucket)
    [facts] = _lines("info", uri, "--largest=2")
    manifest = S3Manifest.load(uri, region=_REGION)
    assert (facts["samples"], facts["total_bytes"]) == (len(manifest), manifest.total_bytes)
    assert (facts["origin"], facts["fingerprint"]) == ([f"s3://{bucket}/im/"], manifest.fingerprint)
    assert facts["largest"] == [{"sample": f"im/{number}.jpg", "bytes": 100 + number} for number in (9, 8)]
    assert facts["columns"]["sizes"] == 8 * len(manifest)
    lines = [line.split() for line in _call("info", uri).splitlines()]
    assert ["fingerprint", manifest.fingerprint] in lines
    assert ["109", "109", "B", "im/9.jpg"] in lines


def test_an_object_that_is_not_a_manifest_is_reported(folder: Path, bucket: str) -> None:
    for command in ("info", "diff", "verify"):
        done = call("manifest", command, f"s3://{bucket}/other")
        assert (done.returncode, done.stdout) == (1, "")
        assert "cannot be used as a manifest" in done.stderr


# -- diff -------------------------------------------------------------------------------------------------------------


def test_what_differs_in_the_bucket_now(folder: Path, bucket: str) -> None:
    uri = _created(bucket, "--suffix=.jpg")
    assert _call("diff", uri, "--suffix=.jpg") == "0 added, 0 removed, 0 changed\n"
    _put(bucket, "im/5.jpg", b"changed")
    _put(bucket, "im/new.jpg", b"123")
    with S3Client(_REGION) as client:
        client.delete_object(bucket, "im/a/1.jpg")
    *changes, last = _lines("diff", uri, "--suffix=.jpg")
    assert last == {"summary": {"added": 1, "removed": 1, "changed": 1}}
    found = {
        each["change"]: (each["uri"], each.get("old", {}).get("size"), each.get("new", {}).get("size"))
        for each in changes
    }
    assert found == {
        "changed": (f"s3://{bucket}/im/5.jpg", 105, 7),
        "added": (f"s3://{bucket}/im/new.jpg", None, 3),
        "removed": (f"s3://{bucket}/im/a/1.jpg", 101, None),
    }
    assert _lines("diff", uri, "--summary") == [{"summary": {"added": 2, "removed": 1, "changed": 1}}]  # with notes.txt


def test_what_differs_in_another_manifest_or_prefix(folder: Path, bucket: str) -> None:
    old, new = _created(bucket), f"s3://{bucket}/manifests/new"
    _put(bucket, "im/5.jpg", b"changed")
    _call("create", f"s3://{bucket}/im/", "--to", new, "--suffix=.jpg")
    lines = _call("diff", old, new).splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["changed", "removed"]
    assert lines[0].split()[1:] == ["105", "B", "->", "7", "B", f"s3://{bucket}/im/5.jpg"]
    assert lines[-1] == "0 added, 1 removed, 1 changed"
    assert _call("diff", old, f"s3://{bucket}/im/a/").splitlines()[-1] == "0 added, 8 removed, 0 changed"


def test_a_prefix_is_needed_if_objects_were_named(folder: Path, bucket: str) -> None:
    uri = f"s3://{bucket}/m/named"
    _call("create", f"s3://{bucket}/other", "--from=objects", "--to", uri)
    assert "name a prefix to compare it with" in call("manifest", "diff", uri).stderr
    assert _call("diff", uri, f"s3://{bucket}/", "--summary") == "12 added, 0 removed, 0 changed\n"  # with itself
    assert "a prefix ends with a slash" in call("manifest", "diff", uri, uri, "--suffix=.jpg").stderr


@pytest.mark.parametrize("seed", range(20))
def test_any_order_gives_the_same_differences(seed: int) -> None:
    rng = random.Random(seed)

    def rows() -> list[Row]:
        names = [(f"bucket-{rng.randrange(2)}", f"{rng.randrange(40)}") for _ in range(rng.randrange(40))]
        return [Row(*name, 1, f"{rng.randrange(2):032x}") for name in dict.fromkeys(names)]

    old, new = rows(), rows()
    if seed % 2:
        old.sort()
        new.sort()
    before, after = ({(row.bucket, row.key): row.etag for row in each} for each in (old, new))
    names = {*before, *after}
    expected = [(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]
    pinned = Pinned(build([*old, *old[:3]]))  # some of them twice
    assert sorted(map(_plain, differences(pinned, new)), key=str) == sorted(expected, key=str)


def _plain(each: Difference) -> tuple[tuple[str, str], str | None, str | None]:
    row = each.old or each.new
    assert row is not None
    etags = (side and side.etag.strip('"') for side in each)
    return (row.bucket, row.key), *etags  # type: ignore[return-value]


# -- verify -----------------------------------------------------------------------------------------------------------


def test_objects_that_are_not_as_listed_are_found(folder: Path, bucket: str) -> None:
    uri = _created(bucket)
    assert call("manifest", "verify", uri).stderr == "11 objects: all as listed\n"
    _put(bucket, "im/5.jpg", bytes(105) + b"!")
    _put(bucket, "im/new.jpg", b"123")
    with S3Client(_REGION) as client:
        client.delete_object(bucket, "im/a/1.jpg")
    done = call("manifest", "verify", uri)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [f"changed   s3://{bucket}/im/5.jpg", f"missing   s3://{bucket}/im/a/1.jpg"]
    assert "of 11 objects" in done.stderr
    lines = _lines("verify", uri, status=1)
    assert lines[-1] == {"summary": {"objects": 11, "missing": 1, "changed": 1, "archived": 0}}


def test_objects_are_verified_by_listing(folder: Path, bucket: str, proxy: RecordingProxy) -> None:
    uri = _created(bucket)
    _call("verify", uri, f"--endpoint-url={proxy.endpoint}")
    assert len([each for each in proxy.exchanges if "list-type" in each.query]) >= 1
    assert [each for each in proxy.of("HEAD") if each.path.startswith(f"/{bucket}/im/")] == []


def test_few_objects_of_a_large_prefix_are_asked_for(folder: Path, bucket: str, proxy: RecordingProxy) -> None:
    for number in range(1000):  # the first page
        (folder / f"a-{number:03}").touch()
    with S3Client(_REGION, endpoint=proxy.endpoint) as client:
        for key in ("other", "im/7.jpg"):
            uris = [f"s3://{bucket}/a-000", f"s3://{bucket}/{key}"]
            manifest = S3Manifest.from_objects(uris, region=_REGION)
            assert isinstance(manifest._rows, Rows)
            assert list(problems_of(client, Pinned(manifest._rows), ask_after=0)) == []
            _put(bucket, key, b"changed")
            [problem] = problems_of(client, Pinned(manifest._rows), ask_after=0)
            assert (problem.problem, problem.uri) == ("changed", uris[1])
            client.delete_object(bucket, key)
            [problem] = problems_of(client, Pinned(manifest._rows), ask_after=0)
            assert (problem.problem, problem.uri) == ("missing", uris[1])
    assert {each.path for each in proxy.of("HEAD")} == {f"/{bucket}/other", f"/{bucket}/im/7.jpg"}


def test_archived_objects_are_found(moto_server: MotoServer, moto_bucket: str) -> None:
    endpoint = f"--endpoint-url={moto_server.endpoint}"
    with S3Client(_REGION, endpoint=moto_server.endpoint) as client:
        for key, kind in (("a/1", None), ("a/2", "GLACIER")):
            with client.put_object(moto_bucket, key, options=S3WriteOptions(storage_class=kind)) as writer:
                writer.write(b"123")
    uri = f"s3://{moto_bucket}/m"
    storage = ("--storage-class=STANDARD", "--storage-class=GLACIER")
    _call("create", f"s3://{moto_bucket}/a/", "--to", uri, endpoint, *storage)
    assert [each.get("problem") for each in _lines("verify", uri, endpoint, status=1)] == ["archived", None]
