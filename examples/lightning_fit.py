"""Train with Lightning on S3, stop, and resume: checkpoints, logs and the best model are all in the bucket.

Run it with ``python examples/lightning_fit.py``. It starts a real S3 server on this machine; on AWS, leave that out.
It needs Lightning: from the checkout, ``pip install '.[demo,lightning]'``.
"""

from __future__ import annotations

import logging
import warnings

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from s3torchconnector import S3Client
from s3torchconnector.lightning import S3LightningCheckpoint
from s3torchconnector.testing import S3Server

ROOT = "s3://training/run-1"


class Regression(LightningModule):
    """Learns y = sin(x) with two small layers."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        x, y = batch
        loss = nn.functional.mse_loss(self.net(x), y)
        self.log("loss", loss, on_epoch=True, on_step=False)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def fit(epochs: int, region: str, resume_from: str | None = None) -> Trainer:
    x = torch.linspace(-3, 3, 512).unsqueeze(1)
    data = DataLoader(TensorDataset(x, torch.sin(x)), batch_size=64, shuffle=True)
    trainer = Trainer(
        default_root_dir=ROOT,
        logger=CSVLogger(ROOT),
        max_epochs=epochs,
        # Saving goes on in a thread while the next steps are computed.
        plugins=[AsyncCheckpointIO(S3LightningCheckpoint(region))],
        callbacks=[ModelCheckpoint(f"{ROOT}/checkpoints", monitor="loss", save_top_k=2, save_last=True)],
        accelerator="cpu",
        log_every_n_steps=8,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Regression(), data, ckpt_path=resume_from)
    return trainer


def main() -> None:
    warnings.simplefilter("ignore")  # Lightning's advice on workers and directories
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    seed_everything(0, verbose=False)
    with S3Server() as server, server.exported():
        server.make_bucket("training")
        first = fit(5, server.region)
        print(f"stopped after epoch {first.current_epoch}, loss {first.callback_metrics['loss']:.4f}")
        second = fit(10, server.region, resume_from=f"{ROOT}/checkpoints/last.ckpt")
        print(f"resumed, up to epoch {second.current_epoch}, loss {second.callback_metrics['loss']:.4f}")
        for page in S3Client(server.region).list_objects("training"):
            print(*(f"  s3://training/{info.key} {info.size} bytes" for info in page.object_info), sep="\n")


if __name__ == "__main__":
    main()
