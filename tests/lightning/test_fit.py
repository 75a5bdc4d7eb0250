"""Lightning's own trainer on S3: what it saves, keeps, removes and resumes from."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.io import AsyncCheckpointIO

from s3torchconnector._s3client import S3Client
from s3torchconnector.lightning import S3LightningCheckpoint
from s3torchconnector.testing import S3Server
from tests.lightning.support import Model, trainer
from tests.servers.processes import run
from tests.servers.proxy import RecordingProxy


@pytest.fixture
def server(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> S3Server:
    monkeypatch.chdir(tmp_path)  # a path that is mistaken for a local one must not end up in the repository
    return s3_server


def _names(server: S3Server, bucket: str, prefix: str = "") -> set[str]:
    pages = S3Client("us-east-1", endpoint=server.endpoint).list_objects(bucket, prefix)
    return {info.key.removeprefix(prefix) for page in pages for info in page.object_info}


def test_the_default_root_may_be_in_s3(server: S3Server, bucket: str, tmp_path: Path) -> None:
    trainer(f"s3://{bucket}/run", server.endpoint, max_epochs=2).fit(Model())
    assert _names(server, bucket, "run/lightning_logs/version_0/") == {
        "checkpoints/epoch=1-step=8.ckpt",
        "hparams.yaml",
        "metrics.csv",
    }
    trainer(f"s3://{bucket}/run", server.endpoint, max_epochs=1).fit(Model())
    assert "checkpoints/epoch=0-step=4.ckpt" in _names(server, bucket, "run/lightning_logs/version_1/")
    assert list(tmp_path.iterdir()) == []


def test_the_best_and_the_last_are_kept(server: S3Server, bucket: str) -> None:
    saving = ModelCheckpoint(f"s3://{bucket}/kept", save_top_k=2, monitor="loss", save_last=True)
    trained = trainer(f"s3://{bucket}/run", server.endpoint, max_epochs=5, callbacks=[saving], logger=False)
    trained.fit(Model())
    assert _names(server, bucket) == {"kept/epoch=3-step=16.ckpt", "kept/epoch=4-step=20.ckpt", "kept/last.ckpt"}
    assert saving.best_model_path == f"s3://{bucket}/kept/epoch=4-step=20.ckpt"


class _SavesEndWithTheirEpoch(Callback):
    """Lightning deletes at once, but saves on a thread: the file of a slow save would appear after its deletion."""

    def __init__(self, plugin: AsyncCheckpointIO) -> None:
        self._plugin = plugin

    def on_train_epoch_start(self, *_: Any) -> None:
        if self._plugin._executor is not None:
            self._plugin._executor.submit(int).result()  # its only thread carries out one job after the other


def test_of_async_saves_the_best_and_the_last_are_kept(server: S3Server, bucket: str, proxy: RecordingProxy) -> None:
    plugin = AsyncCheckpointIO(S3LightningCheckpoint("us-east-1", endpoint=proxy.endpoint))
    saving = ModelCheckpoint(f"s3://{bucket}/kept", save_top_k=2, monitor="loss", save_last=True)
    trained = trainer(
        "s3://unused", proxy.endpoint, plugin=plugin, max_epochs=5, logger=False,
        callbacks=[saving, _SavesEndWithTheirEpoch(plugin)],
    )  # fmt: skip
    trained.fit(Model())
    names = [f"kept/epoch={epoch}-step={4 * (epoch + 1)}.ckpt" for epoch in range(5)]
    assert _names(server, bucket) == {*names[3:], "kept/last.ckpt"}
    assert {each.path for each in proxy.of("PUT")} == {f"/{bucket}/{name}" for name in [*names, "kept/last.ckpt"]}
    weights = {}
    for name in [*names[3:], "kept/last.ckpt"]:
        loaded = plugin.load_checkpoint(f"s3://{bucket}/{name}", weights_only=True)
        weights[name] = loaded["state_dict"]["weight"].item()
    assert weights == {names[3]: 16, names[4]: 20, "kept/last.ckpt": 20}


@pytest.mark.parametrize("wrap", [lambda plugin: plugin, AsyncCheckpointIO], ids=["plain", "async"])
def test_a_run_resumes(server: S3Server, bucket: str, wrap: Any) -> None:
    def plugin() -> Any:
        return wrap(S3LightningCheckpoint("us-east-1", endpoint=server.endpoint))

    def run(model: Model, epochs: int, **arguments: Any) -> Any:
        saving = ModelCheckpoint(f"s3://{bucket}/kept", save_last=True)
        of_run: dict[str, Any] = {"max_epochs": epochs, "plugin": plugin(), "logger": False, "callbacks": [saving]}
        trained = trainer("s3://unused", server.endpoint, **of_run)
        trained.fit(model, **arguments)
        return trained

    run(Model(), 2)
    model = Model()
    resumed = run(model, 3, ckpt_path=f"s3://{bucket}/kept/last.ckpt")
    assert model.weight.item() == 12  # 8 steps before, 4 now
    assert resumed.global_step == 12


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("wrap", [lambda plugin: plugin, AsyncCheckpointIO], ids=["plain", "async"])
def test_a_resumed_run_keeps_what_it_resumed_from(server: S3Server, bucket: str, wrap: Any) -> None:
    def run(name: str, epochs: int, **arguments: Any) -> str:
        saving = ModelCheckpoint(f"s3://{bucket}/{name}", save_top_k=1)
        plugin = wrap(S3LightningCheckpoint("us-east-1", endpoint=server.endpoint))
        trained = trainer(
            "s3://unused", server.endpoint, plugin=plugin, max_epochs=epochs, logger=False, callbacks=[saving]
        )
        trained.fit(Model(), **arguments)
        return saving.best_model_path

    first = run("one", 1)
    second = run("two", 3, ckpt_path=first)
    assert {first, second} == {f"s3://{bucket}/{name}" for name in _names(server, bucket)}
    assert second == f"s3://{bucket}/two/epoch=2-step=12.ckpt"


def test_metrics_are_logged(server: S3Server, bucket: str) -> None:
    logger = CSVLogger(f"s3://{bucket}/logs", flush_logs_every_n_steps=2)
    trainer("s3://unused", server.endpoint, max_epochs=1, logger=logger).fit(Model())
    client = S3Client("us-east-1", endpoint=server.endpoint)
    text = client.get_object(bucket, "logs/lightning_logs/version_0/metrics.csv").read().decode()
    assert [line.split(",")[1] for line in text.splitlines()] == ["loss", "-0.0", "-1.0", "-2.0", "-3.0"]


def test_save_checkpoint_of_the_trainer(server: S3Server, bucket: str) -> None:
    trained = trainer("s3://unused", server.endpoint, max_epochs=1, logger=False, enable_checkpointing=False)
    trained.fit(Model())
    trained.save_checkpoint(f"s3://{bucket}/by-hand.ckpt")
    plugin = S3LightningCheckpoint("us-east-1", endpoint=server.endpoint)
    loaded = plugin.load_checkpoint(f"s3://{bucket}/by-hand.ckpt", weights_only=True)
    assert torch.equal(loaded["state_dict"]["weight"], torch.tensor(4.0))


@pytest.mark.parametrize(
    ("strategy", "reports"), [("ddp", {0, 1}), pytest.param("ddp_spawn", {0}, marks=pytest.mark.slow)]
)
def test_two_processes_fit_save_and_resume(
    server: S3Server, bucket: str, tmp_path: Path, strategy: str, reports: set[int]
) -> None:
    root = Path(__file__).parents[2]
    uri = f"s3://{bucket}/ddp"
    command = [sys.executable, "-m", "tests.lightning.ddp_fit", uri, server.endpoint, strategy]
    done = run(command, 100, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=root)
    assert done.returncode == 0, done.stderr
    said = {line for line in done.stdout.splitlines() if line.startswith("rank")}
    assert said == {f"rank {rank} of 2: 12" for rank in reports}, done.stdout
    assert {"last.ckpt", "epoch=1-step=8.ckpt"} <= _names(server, bucket, "ddp/checkpoints/")
