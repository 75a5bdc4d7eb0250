"""Lightning on shuffled objects: the run is stopped in the middle of an epoch, and the next one goes on there.

Run it with ``python examples/lightning_mid_epoch.py``. It starts a real S3 server on this machine; on AWS, leave that
out. Pass an ``S3DataLoader`` to ``fit``, and nothing else: Lightning stores its state in the checkpoint.
It needs Lightning: from the checkout, ``pip install '.[demo,lightning]'``.
"""

from __future__ import annotations

import logging
import warnings

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from s3torchconnector import S3Client, S3DataLoader, S3Manifest, S3Reader, S3StreamingDataset
from s3torchconnector.lightning import S3LightningCheckpoint
from s3torchconnector.testing import S3Server

REGION = "us-east-1"
CHECKPOINTS = "s3://training/checkpoints"
COUNT = 103


def to_sample(reader: S3Reader) -> int:
    return int(reader.read())


class Sine(LightningModule):
    """Learns y = sin(x), and notes which samples it has had."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(1, 1)
        self.seen: list[int] = []

    def training_step(self, numbers: torch.Tensor, _: int) -> torch.Tensor:
        self.seen += numbers.tolist()
        x = numbers[:, None] / COUNT
        return nn.functional.mse_loss(self.net(x), x.sin())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def fit(steps: int, resume_from: str | None = None) -> Sine:
    manifest = S3Manifest.shared("s3://training/samples/", at="s3://training/manifest", region=REGION)
    loader = S3DataLoader(S3StreamingDataset(manifest, transform=to_sample, batch_size=8, seed=1), num_workers=2)
    trainer = Trainer(
        max_steps=steps,
        plugins=[S3LightningCheckpoint(REGION)],
        callbacks=[ModelCheckpoint(CHECKPOINTS, filename="{step}", every_n_train_steps=5, save_top_k=-1)],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = Sine()
    trainer.fit(model, loader, ckpt_path=resume_from)
    return model


def main() -> None:
    warnings.simplefilter("ignore")  # Lightning's advice on workers, and on __len__, which is exact here
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    seed_everything(0, verbose=False)
    with S3Server() as server, server.exported():
        server.make_bucket("training")
        with S3Client(REGION) as client:
            for number in range(COUNT):
                with client.put_object("training", f"samples/{number:03}") as writer:
                    writer.write(str(number).encode())
        first = fit(steps=5)
        print(f"stopped after 5 steps, {len(first.seen)} of {COUNT} samples")
        second = fit(steps=13, resume_from=f"{CHECKPOINTS}/step=5.ckpt")
        again = len(first.seen) + len(second.seen) - len({*first.seen, *second.seen})
        print(f"resumed, {len(second.seen)} samples to the end of the epoch; read again: {again}")


if __name__ == "__main__":
    main()
