"""The plugin by itself: objects stored, loaded and removed, and what is refused."""

from __future__ import annotations

import inspect
import os
import pickle
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.plugins.io import AsyncCheckpointIO

from s3torchconnector import S3ClientConfig
from s3torchconnector._s3client import S3Client
from s3torchconnector.lightning import S3LightningCheckpoint
from s3torchconnector.testing import S3Server
from tests.reading.test_reader_fork import Child
from tests.servers.http_messages import s3_error
from tests.servers.proxy import RecordingProxy, Replace
from tests.servers.warm import WarmPython

# Lightning from 2.6 on; tests/lightning/test_older_versions.py runs this file with older ones.
_PASSES_WEIGHTS_ONLY = "weights_only" in inspect.signature(CheckpointIO.load_checkpoint).parameters


@pytest.fixture
def plugin(proxy: RecordingProxy) -> S3LightningCheckpoint:
    return S3LightningCheckpoint("us-east-1", endpoint=proxy.endpoint)


def _keys(s3_server: S3Server, bucket: str) -> list[str]:
    pages = S3Client("us-east-1", endpoint=s3_server.endpoint).list_objects(bucket)
    return [info.key for page in pages for info in page.object_info]


def test_what_was_saved_is_loaded(plugin: S3LightningCheckpoint, proxy: RecordingProxy, bucket: str) -> None:
    checkpoint = {"state_dict": {"weight": torch.arange(5.0)}, "epoch": 3}
    plugin.save_checkpoint(checkpoint, f"s3://{bucket}/a/last.ckpt")
    assert [each.method for each in proxy.exchanges] == ["PUT"]
    loaded = plugin.load_checkpoint(f"s3://{bucket}/a/last.ckpt")
    assert loaded["epoch"] == 3
    assert torch.equal(loaded["state_dict"]["weight"], torch.arange(5.0))
    moved = plugin.load_checkpoint(f"s3://{bucket}/a/last.ckpt", map_location="meta")
    assert moved["state_dict"]["weight"].is_meta


def test_weights_only_is_passed_on(plugin: S3LightningCheckpoint, bucket: str) -> None:
    plugin.save_checkpoint({"config": S3ClientConfig()}, f"s3://{bucket}/last.ckpt")
    with pytest.raises(pickle.UnpicklingError):
        plugin.load_checkpoint(f"s3://{bucket}/last.ckpt", weights_only=True)
    assert plugin.load_checkpoint(f"s3://{bucket}/last.ckpt", weights_only=False) == {"config": S3ClientConfig()}


def test_before_lightning_2_6_classes_are_loaded(
    plugin: S3LightningCheckpoint, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_checkpoint(self: Any, path: Any, map_location: Any = None) -> dict[str, Any]:
        raise NotImplementedError  # its parameters are what counts

    plugin.save_checkpoint({"config": S3ClientConfig()}, f"s3://{bucket}/last.ckpt")
    if _PASSES_WEIGHTS_ONLY:
        with pytest.raises(pickle.UnpicklingError):  # PyTorch's default, which Lightning leaves as it is from 2.6 on
            plugin.load_checkpoint(f"s3://{bucket}/last.ckpt")
    monkeypatch.setattr(CheckpointIO, "load_checkpoint", load_checkpoint)
    assert plugin.load_checkpoint(f"s3://{bucket}/last.ckpt") == {"config": S3ClientConfig()}
    with pytest.raises(pickle.UnpicklingError):
        plugin.load_checkpoint(f"s3://{bucket}/last.ckpt", weights_only=True)


def test_loading_a_missing_checkpoint_is_file_not_found(plugin: S3LightningCheckpoint, bucket: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"s3://{bucket}/none.ckpt"):
        plugin.load_checkpoint(f"s3://{bucket}/none.ckpt")


def test_a_file_is_removed_and_no_other(plugin: S3LightningCheckpoint, s3_server: S3Server, bucket: str) -> None:
    for key in ("epoch=1", "epoch=10", "epoch=1-v1"):
        plugin.save_checkpoint({}, f"s3://{bucket}/{key}")
    plugin.remove_checkpoint(f"s3://{bucket}/epoch=1")
    assert _keys(s3_server, bucket) == ["epoch=1-v1", "epoch=10"]


@pytest.mark.parametrize("end", ["", "/"])
def test_a_directory_is_removed_whole(
    plugin: S3LightningCheckpoint, s3_server: S3Server, bucket: str, end: str
) -> None:
    for key in ("epoch=1/0.distcp", "epoch=1/deep/.metadata", "epoch=10/0.distcp"):
        plugin.save_checkpoint({}, f"s3://{bucket}/{key}")
    plugin.remove_checkpoint(f"s3://{bucket}/epoch=1{end}")
    assert _keys(s3_server, bucket) == ["epoch=10/0.distcp"]


def test_removing_nothing_is_not_an_error(plugin: S3LightningCheckpoint, bucket: str) -> None:
    plugin.remove_checkpoint(f"s3://{bucket}/none.ckpt")


class _Waiting:
    """An ``AsyncCheckpointIO`` whose saves wait until the test lets them go on."""

    def __init__(self, plugin: S3LightningCheckpoint) -> None:
        self._plugin = plugin
        self._go_on = threading.Semaphore(0)
        self._io = AsyncCheckpointIO(self)  # type: ignore[arg-type]
        self._stored = threading.Semaphore(0)
        self.save, self.remove, self.teardown = (
            self._io.save_checkpoint,
            self._io.remove_checkpoint,
            self._io.teardown,
        )

    def save_checkpoint(self, *arguments: Any) -> None:
        assert self._go_on.acquire(timeout=30)
        self._plugin.save_checkpoint(*arguments)
        self._stored.release()

    def remove_checkpoint(self, path: str) -> None:
        self._plugin.remove_checkpoint(path)

    def store_next(self) -> None:
        self._go_on.release()
        assert self._stored.acquire(timeout=30)


def test_async_removals_wait_for_a_newer_checkpoint(
    plugin: S3LightningCheckpoint, s3_server: S3Server, bucket: str
) -> None:
    queue = _Waiting(plugin)
    for name in ("one", "two", "three"):
        queue.save({}, f"s3://{bucket}/{name}")
    queue.remove(f"s3://{bucket}/one")  # not stored yet
    queue.remove(f"s3://{bucket}/two")
    seen = []
    for _ in range(3):
        queue.store_next()
        seen.append(_keys(s3_server, bucket))
    assert seen == [["one"], ["two"], ["three"]]
    queue.save({}, f"s3://{bucket}/four")
    queue.store_next()
    queue.remove(f"s3://{bucket}/three")  # a newer one is stored: at once
    assert _keys(s3_server, bucket) == ["four"]
    queue.teardown()


def test_an_earlier_runs_checkpoint_goes_after_the_first_save(
    plugin: S3LightningCheckpoint, s3_server: S3Server, bucket: str
) -> None:
    for name in ("old", "older", "resumed"):
        S3LightningCheckpoint("us-east-1", endpoint=s3_server.endpoint).save_checkpoint({}, f"s3://{bucket}/{name}")
    plugin.load_checkpoint(f"s3://{bucket}/resumed")
    queue = _Waiting(plugin)
    queue.save({}, f"s3://{bucket}/new")
    queue.remove(f"s3://{bucket}/old")
    assert _keys(s3_server, bucket) == ["old", "older", "resumed"]
    queue.store_next()
    queue.remove(f"s3://{bucket}/older")
    assert _keys(s3_server, bucket) == ["new", "resumed"]
    queue.teardown()


def test_what_was_loaded_stays_until_it_is_stored_again(
    plugin: S3LightningCheckpoint, s3_server: S3Server, bucket: str
) -> None:
    S3LightningCheckpoint("us-east-1", endpoint=s3_server.endpoint).save_checkpoint({}, f"s3://{bucket}/run/old")
    plugin.load_checkpoint(f"s3://{bucket}/run/old")
    plugin.save_checkpoint({}, f"s3://{bucket}/run/new")
    for path in ("run/old", "run", "run/"):
        plugin.remove_checkpoint(f"s3://{bucket}/{path}")
    plugin.teardown()
    assert _keys(s3_server, bucket) == ["run/new", "run/old"]
    plugin.save_checkpoint({}, f"s3://{bucket}/run/old")
    plugin.remove_checkpoint(f"s3://{bucket}/run/old")
    assert _keys(s3_server, bucket) == ["run/new"]


def test_what_was_loaded_while_its_removal_waited_stays(
    plugin: S3LightningCheckpoint, s3_server: S3Server, bucket: str
) -> None:
    queue = _Waiting(plugin)
    queue.save({}, f"s3://{bucket}/one")
    queue.store_next()
    queue.remove(f"s3://{bucket}/one")
    plugin.load_checkpoint(f"s3://{bucket}/one")
    queue.save({}, f"s3://{bucket}/two")
    queue.store_next()
    queue.teardown()
    plugin.teardown()
    assert _keys(s3_server, bucket) == ["one", "two"]


def test_a_checkpoint_that_is_stored_again_stays(
    plugin: S3LightningCheckpoint, s3_server: S3Server, bucket: str
) -> None:
    queue = _Waiting(plugin)
    queue.save({}, f"s3://{bucket}/one")
    queue.store_next()
    queue.remove(f"s3://{bucket}/one")
    for name in ("one", "two"):
        queue.save({}, f"s3://{bucket}/{name}")
        queue.store_next()
    assert _keys(s3_server, bucket) == ["one", "two"]
    queue.remove(f"s3://{bucket}/two")
    assert _keys(s3_server, bucket) == ["one", "two"]
    plugin.teardown()
    assert _keys(s3_server, bucket) == ["one"]
    queue.teardown()


def test_a_checkpoint_saved_after_its_removal_stays(
    plugin: S3LightningCheckpoint, s3_server: S3Server, bucket: str
) -> None:
    plugin.remove_checkpoint(f"s3://{bucket}/one")
    for name in ("one", "two"):
        plugin.save_checkpoint({}, f"s3://{bucket}/{name}")
    assert _keys(s3_server, bucket) == ["one", "two"]


def test_a_save_that_fails_removes_nothing(
    plugin: S3LightningCheckpoint, proxy: RecordingProxy, s3_server: S3Server, bucket: str
) -> None:
    queue = _Waiting(plugin)
    queue.save({}, f"s3://{bucket}/one")
    queue.store_next()
    proxy.misbehave = lambda request: Replace(s3_error(403, "AccessDenied")) if request.method == "PUT" else None
    queue.save({}, f"s3://{bucket}/two")
    queue.remove(f"s3://{bucket}/one")
    queue._go_on.release()
    with pytest.raises(PermissionError):
        queue.teardown()
    assert _keys(s3_server, bucket) == ["one"]


@pytest.mark.parametrize("lose", [Path, os.path.normpath, os.path.abspath, lambda path: Path(path).absolute()])
def test_a_path_that_lost_a_slash_is_repaired(
    plugin: S3LightningCheckpoint,
    s3_server: S3Server,
    bucket: str,
    lose: Callable[[str], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = lose(f"s3://{bucket}/a/one.ckpt")
    assert "s3://" not in str(path)
    plugin.save_checkpoint({"a": 1}, path)
    assert _keys(s3_server, bucket) == ["a/one.ckpt"]
    assert list(tmp_path.iterdir()) == []
    plugin.save_checkpoint({}, f"s3://{bucket}/two.ckpt")
    plugin.remove_checkpoint(path)
    assert _keys(s3_server, bucket) == ["two.ckpt"]
    plugin.save_checkpoint({"a": 1}, f"s3://{bucket}/a/one.ckpt")
    assert plugin.load_checkpoint(path) == {"a": 1}
    plugin.remove_checkpoint(f"s3://{bucket}/a/one.ckpt")  # the same object, so it is known that it was loaded
    assert _keys(s3_server, bucket) == ["a/one.ckpt", "two.ckpt"]


@pytest.mark.parametrize("form", [str, Path, lambda path: f"file://{path}", lambda path: os.path.relpath(path)])
def test_local_paths_are_left_to_lightnings_own_plugin(
    plugin: S3LightningCheckpoint, proxy: RecordingProxy, tmp_path: Path, form: Callable[[Path], Any]
) -> None:
    path = tmp_path / "new" / ".temp.ckpt"
    plugin.save_checkpoint({"weight": torch.ones(2)}, form(path))
    assert torch.equal(torch.load(path, weights_only=True)["weight"], torch.ones(2))
    assert torch.equal(plugin.load_checkpoint(form(path))["weight"], torch.ones(2))
    chosen = {"weights_only": True} if _PASSES_WEIGHTS_ONLY else {}
    assert plugin.load_checkpoint(form(path), map_location="meta", **chosen)["weight"].is_meta
    plugin.remove_checkpoint(form(path))
    assert not path.exists()
    assert proxy.exchanges == []


@pytest.mark.parametrize("path", ["", "gs://bucket/s3:/key", b"s3://bucket/key", None])
def test_a_path_that_is_no_s3_string_is_a_type_error(plugin: S3LightningCheckpoint, path: Any) -> None:
    for call in (lambda: plugin.save_checkpoint({}, path), lambda: plugin.load_checkpoint(path)):
        with pytest.raises(TypeError, match="string that begins with 's3://'"):
            call()
    with pytest.raises(TypeError, match="string that begins with 's3://'"):
        plugin.remove_checkpoint(path)


def test_storage_options_are_ignored_with_a_warning(plugin: S3LightningCheckpoint, bucket: str) -> None:
    with pytest.warns(UserWarning, match="S3ClientConfig"):
        plugin.save_checkpoint({"a": 1}, f"s3://{bucket}/key", storage_options={"anon": True})
    assert plugin.load_checkpoint(f"s3://{bucket}/key") == {"a": 1}


def test_teardown_leaves_a_plugin_that_works(plugin: S3LightningCheckpoint, bucket: str) -> None:
    plugin.save_checkpoint({"a": 1}, f"s3://{bucket}/key")
    plugin.teardown()
    assert plugin.load_checkpoint(f"s3://{bucket}/key") == {"a": 1}


def test_it_pickles(plugin: S3LightningCheckpoint, bucket: str) -> None:
    plugin.save_checkpoint({"a": 1}, f"s3://{bucket}/key")
    assert pickle.loads(pickle.dumps(plugin)).load_checkpoint(f"s3://{bucket}/key") == {"a": 1}


def test_it_is_a_checkpoint_io(plugin: S3LightningCheckpoint) -> None:
    assert isinstance(plugin, CheckpointIO)


_PROGRAM = """
import importlib.abc, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in {missing}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
{program}
"""


def _run(python: WarmPython, program: str, *missing: str) -> str:
    done = python.run("-c", _PROGRAM.format(missing=missing, program=program))
    return done.stdout + done.stderr


def test_without_lightning_the_error_says_what_to_install(warm_python: WarmPython) -> None:
    program = "import s3torchconnector; import s3torchconnector.lightning"
    said = _run(warm_python, program, "lightning", "lightning_fabric")
    assert "\nModuleNotFoundError: s3torchconnector.lightning needs Lightning" in said
    assert "pip install '.[lightning]'" in said


def test_both_packages_of_lightning_know_the_plugin(warm_python: WarmPython) -> None:
    program = (
        "import pytorch_lightning as pl; from s3torchconnector.lightning import S3LightningCheckpoint as C; "
        "pl.Trainer(plugins=[C('us-east-1')], accelerator='cpu', logger=False)\nprint('fine')"
    )
    assert "\nfine\n" in "\n" + _run(warm_python, program, "lightning")

    def beside() -> bytes:
        """In a child, since it stays imported; ``lightning`` is already."""
        warnings.simplefilter("ignore")
        exec(program, {})
        return b"fine"

    assert Child(beside).result() == b"fine"
