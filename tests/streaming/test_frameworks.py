"""Lightning, Ray Train and distributed checkpoints keep the loader's state, with the real packages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
import torch.distributed.checkpoint as dcp
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel

from s3torchconnector import S3DataLoader, S3Manifest, S3StreamingDataset
from s3torchconnector.testing import S3Server
from tests.streaming.support import loading, number, numbered, options

COUNT = 29


@pytest.fixture(scope="module")
def manifest(s3_server: S3Server) -> S3Manifest:
    s3_server.make_bucket("frameworks")
    return S3Manifest.from_prefix(numbered(s3_server, "frameworks", COUNT), **options(s3_server))


def dataset_of(manifest: S3Manifest, batch_size: int = 4) -> S3StreamingDataset:
    return S3StreamingDataset(manifest, transform=number, batch_size=batch_size, seed=5)


class Noting(BoringModel):
    """Notes what it is trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> Any:
        self.seen += batch.tolist()
        return {"loss": self.layer(torch.ones(1, 32)).sum()}


def fit(model: Noting, loader: S3DataLoader, folder: Path, **changes: Any) -> None:
    trainer = lightning.Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0,
        callbacks=[ModelCheckpoint(folder, filename="{step}", every_n_train_steps=3, save_top_k=-1)],
        **{name: value for name, value in changes.items() if name != "ckpt_path"},
    )  # fmt: skip
    trainer.fit(model, loader, ckpt_path=changes.get("ckpt_path"))


@pytest.mark.filterwarnings("ignore:Your `IterableDataset` has `__len__` defined:UserWarning")
def test_lightning_goes_on_in_the_middle_of_an_epoch(manifest: S3Manifest, tmp_path: Path) -> None:
    epochs = [list(dataset) for dataset in [dataset_of(manifest)] for _ in range(2)]
    first, second = Noting(), Noting()
    with loading(dataset_of(manifest), num_workers=2, collate_fn=None) as loader:
        fit(first, loader, tmp_path, max_steps=3)
    assert first.seen == epochs[0][:12]
    fit(second, S3DataLoader(dataset_of(manifest)), tmp_path, max_epochs=2, ckpt_path=tmp_path / "step=3.ckpt")
    assert first.seen + second.seen == epochs[0] + epochs[1]


def test_a_loader_that_ray_has_prepared_is_a_batch_ahead_of_the_loop(manifest: S3Manifest) -> None:
    """Which is why the guide says not to. With no workers, Ray calls the function here, and starts no process."""
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer, prepare_data_loader

    positions = []

    def train() -> None:
        loader = S3DataLoader(dataset_of(manifest))
        for each in (loader, prepare_data_loader(loader)):
            next(iter(each))
            positions.append(loader.state_dict()["position"])

    TorchTrainer(train, scaling_config=ScalingConfig(num_workers=0)).fit()
    assert positions == [4, 8]


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_a_distributed_checkpoint_holds_the_state(manifest: S3Manifest, tmp_path: Path) -> None:
    loader = S3DataLoader(dataset_of(manifest), num_workers=2)
    seen = next(iter(loader)).tolist()
    dcp.save({"loader": loader}, checkpoint_id=tmp_path)
    other = S3DataLoader(dataset_of(manifest, batch_size=5))
    dcp.load({"loader": other}, checkpoint_id=tmp_path)
    assert sorted(seen + [int(sample) for batch in other for sample in batch]) == list(range(COUNT))
