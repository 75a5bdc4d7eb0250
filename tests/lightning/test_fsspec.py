"""The file system of s3:// paths: what Lightning asks of one, on a real server."""

from __future__ import annotations

import gzip
import importlib
import sys
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from s3torchconnector._errors import S3AccessDeniedError, S3ConfigurationError
from s3torchconnector._s3client import S3Client
from s3torchconnector.lightning import S3LightningCheckpoint
from s3torchconnector.lightning._fsspec import S3PathFileSystem, serve_s3_paths, use_client
from s3torchconnector.testing import S3Server
from tests.servers.http_messages import s3_error
from tests.servers.proxy import RecordingProxy, Replace


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """fsspec's registered file systems: none for s3:// before the test, and none after it."""
    in_use: dict[str, Any] = sys.modules["fsspec.registry"]._registry
    monkeypatch.setitem(in_use, "s3", S3PathFileSystem)
    del in_use["s3"]
    monkeypatch.setattr(S3PathFileSystem, "latest", None)
    monkeypatch.setattr(S3PathFileSystem, "made", set())
    return in_use


@pytest.fixture
def files(s3_server: S3Server) -> Any:
    serve_s3_paths()
    use_client(S3Client("us-east-1", endpoint=s3_server.endpoint))
    return fsspec.filesystem("s3")


@pytest.fixture
def root(files: Any, bucket: str) -> str:
    """s3://bucket with the objects ``a/1`` (3 bytes), ``a/b/2`` and ``ab``."""
    for key in ("a/1", "a/b/2", "ab"):
        with files.open(f"s3://{bucket}/{key}", "wb") as file:
            file.write(b"abc")
    return f"s3://{bucket}"


def test_existing_and_missing_paths(files: Any, root: str) -> None:
    assert [files.exists(f"{root}{path}") for path in ("", "/a", "/a/", "/a/1", "/ab", "/none")] == [True] * 5 + [False]
    assert [files.isdir(f"{root}{path}") for path in ("", "/a", "/a/b", "/a/1", "/none")] == [True] * 3 + [False] * 2
    assert [files.isfile(f"{root}{path}") for path in ("/a", "/a/1", "/ab", "/none")] == [False, True, True, False]
    assert files.info(f"{root}/a/1")["size"] == 3
    assert abs(files.modified(f"{root}/a/1").timestamp() - time.time()) < 100


def test_listing(files: Any, root: str) -> None:
    name = root.removeprefix("s3://")
    assert sorted(files.ls(f"{root}/a", detail=False)) == [f"{name}/a/1", f"{name}/a/b"]
    assert {each["name"]: each["type"] for each in files.listdir(f"{root}/a/")} == {
        f"{name}/a/1": "file",
        f"{name}/a/b": "directory",
    }
    assert files.ls(f"{root}/ab", detail=False) == [f"{name}/ab"]
    assert sorted(files.find(root)) == [f"{name}/a/1", f"{name}/a/b/2", f"{name}/ab"]
    with pytest.raises(FileNotFoundError):
        files.ls(f"{root}/none")


def test_a_directory_that_was_made_is_there(files: Any, root: str) -> None:
    files.makedirs(f"{root}/new/deep", exist_ok=True)
    assert files.isdir(f"{root}/new/deep")
    assert files.ls(f"{root}/new/deep") == []
    files.rm(f"{root}/new/deep", recursive=True)
    assert not files.exists(f"{root}/new/deep")


def test_text_is_written_appended_and_read(files: Any, root: str) -> None:
    for mode, text in (("w", "one\n"), ("a", "two\n")):
        with files.open(f"{root}/metrics.csv", mode, newline="") as file:
            file.write(text)
    with files.open(f"{root}/metrics.csv", "r") as file:
        assert list(file) == ["one\n", "two\n"]
    with files.open(f"{root}/new.csv", "a") as file:
        file.write("three")
    assert files.cat_file(f"{root}/new.csv") == b"three"
    with pytest.raises(FileNotFoundError):
        files.open(f"{root}/none.csv")
    with pytest.raises(ValueError, match="'xb'"):
        files.open(f"{root}/none.csv", "xb")


def _half(file: Any, text: Any) -> None:
    with file:
        file.write(text)
        raise InterruptedError


@pytest.mark.parametrize(("mode", "text"), [("wb", b"half"), ("w", "half"), ("wt", "half"), ("a", "half")])
def test_what_was_interrupted_is_not_stored(files: Any, root: str, mode: str, text: Any) -> None:
    file = files.open(f"{root}/ab", mode)
    with pytest.raises(InterruptedError):
        _half(file, text)
    assert file.closed
    assert files.cat_file(f"{root}/ab") == b"abc"


def test_text_that_was_dropped_is_not_stored(files: Any, root: str) -> None:
    file = files.open(f"{root}/ab", "w")
    file.write("half")
    with pytest.warns(ResourceWarning, match=r"ab.*dropped without close\(\): it is aborted"):
        del file  # without a garbage collection
    assert files.cat_file(f"{root}/ab") == b"abc"


def test_text_goes_through_the_codec_that_was_asked_for(files: Any, root: str) -> None:
    with files.open(f"{root}/latin", "w", encoding="latin-1", newline="\r\n", compression=None) as file:
        file.write("ä\n")
    assert files.cat_file(f"{root}/latin") == b"\xe4\r\n"


@pytest.mark.parametrize("mode", ["wb", "w", "a"])
@pytest.mark.parametrize("compression", ["gzip", "infer"])
def test_writing_with_a_compression_is_refused(files: Any, root: str, mode: str, compression: str) -> None:
    with pytest.raises(NotImplementedError, match="nothing would be stored"):
        files.open(f"{root}/log.gz", mode, compression=compression)
    with files.open(f"{root}/log.gz", "wb") as file, gzip.open(file, "wt") as text:
        text.write("abc")
    with files.open(f"{root}/log.gz", "rt", compression=compression) as file:
        assert file.read() == "abc"
    with files.open(f"{root}/log", mode, compression="infer") as file:  # of which there is none
        file.write(b"abc" if mode == "wb" else "abc")
    assert files.cat(f"{root}/log") == b"abc"


def test_copies_moves_and_removals(files: Any, root: str) -> None:
    files.cp_file(f"{root}/ab", f"{root}/copy")
    files.mv(f"{root}/copy", f"{root}/moved")
    assert files.cat_file(f"{root}/moved") == b"abc"
    assert not files.exists(f"{root}/copy")
    files.rm(f"{root}/a", recursive=True)
    assert [files.exists(f"{root}/{key}") for key in ("a", "a/b/2", "ab")] == [False, False, True]


def test_a_directory_is_copied_and_moved_whole(files: Any, root: str) -> None:
    name = root.removeprefix("s3://")
    files.copy(f"{root}/a", f"{root}/copy", recursive=True)
    files.mv(f"{root}/a", f"{root}/moved", recursive=True)
    below = [f"{name}/{directory}/{key}" for directory in ("copy", "moved") for key in ("1", "b/2")]
    assert sorted(files.find(root)) == sorted([*below, f"{name}/ab"])
    with pytest.raises(FileNotFoundError):
        files.cp_file(f"{root}/none", f"{root}/other")


def test_an_empty_bucket_has_no_files(files: Any, bucket: str) -> None:
    assert files.ls(f"s3://{bucket}") == files.find(f"s3://{bucket}") == []
    assert list(files.walk(f"s3://{bucket}")) == [(bucket, [], [])]
    with pytest.raises(FileNotFoundError):
        files.ls("s3://no-such-bucket")


def test_a_whole_bucket_is_not_removed(files: Any, root: str) -> None:
    with pytest.raises(ValueError, match="would delete all objects of"):
        files.rm(root, recursive=True)
    assert len(files.find(root)) == 3


def test_a_transaction_stores_all_or_nothing(files: Any, root: str) -> None:
    with files.transaction, files.open(f"{root}/whole", "wb") as file:
        file.write(b"abc")
    assert files.cat_file(f"{root}/whole") == b"abc"

    def interrupted() -> None:
        with files.transaction:
            with files.open(f"{root}/torn", "wb") as file:
                file.write(b"abc")
            assert not files.exists(f"{root}/torn")
            raise InterruptedError

    with pytest.raises(InterruptedError):
        interrupted()
    assert not files.exists(f"{root}/torn")

    with files.transaction:
        with files.open(f"{root}/text", "w") as file:
            file.write("whole")
        files.open(f"{root}/dropped", "w").write("whole")
        with pytest.raises(InterruptedError):
            _half(files.open(f"{root}/torn", "w"), "half")
    assert files.cat_file(f"{root}/text") == files.cat_file(f"{root}/dropped") == b"whole"
    assert not files.exists(f"{root}/torn")


def test_a_denied_access_is_an_error_and_not_false(files: Any, proxy: RecordingProxy, bucket: str) -> None:
    use_client(S3Client("us-east-1", endpoint=proxy.endpoint))
    proxy.misbehave = lambda request: Replace(s3_error(403, "AccessDenied"))
    with pytest.raises(S3AccessDeniedError):
        files.exists(f"s3://{bucket}/key")


def test_using_a_path_before_a_plugin_says_what_to_do() -> None:
    serve_s3_paths()
    with pytest.raises(S3ConfigurationError, match="create an S3LightningCheckpoint"):
        fsspec.filesystem("s3").exists("s3://bucket/key")


def test_another_one_in_use_is_left_alone(registry: dict[str, Any]) -> None:
    registry["s3"] = MemoryFileSystem
    serve_s3_paths()
    assert registry["s3"] is MemoryFileSystem


def test_s3fs_goes_first(registry: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s3fs.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    serve_s3_paths()
    assert "s3" not in registry


_S3FS = """
from fsspec.implementations.memory import MemoryFileSystem

class S3FileSystem(MemoryFileSystem):
    protocol = "s3"
"""


def test_the_plugin_decides_beside_s3fs(
    registry: dict[str, Any], s3_server: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s3fs.py").write_text(_S3FS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "s3fs", importlib.import_module("s3fs"))
    registry["s3"] = sys.modules["s3fs"].S3FileSystem  # as after its first use
    serve_s3_paths()
    client = S3LightningCheckpoint("us-east-1", endpoint=s3_server.endpoint)._client
    files, _ = fsspec.url_to_fs(f"s3://{bucket}/run")
    assert files.client is client
    with fsspec.open(f"s3://{bucket}/run/a", "wb") as file:
        file.write(b"abc")
    assert files.cat_file(f"s3://{bucket}/run/a") == b"abc"
    assert isinstance(fsspec.filesystem("s3", anon=True), sys.modules["s3fs"].S3FileSystem)
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": "http://127.0.0.1:1"})
    assert fsspec.filesystem("s3").client is client
