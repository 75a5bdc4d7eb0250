"""A model that says what it learned, and trainers of it on S3."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from s3torchconnector.lightning import S3LightningCheckpoint

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "log_every_n_steps": 1,
}


class Model(LightningModule):
    """One weight that grows by one with each step: as many steps as it was trained for."""

    def __init__(self, rate: float = 1.0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:
        loss = -self.weight
        self.log("loss", loss.detach())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.hparams["rate"])

    def train_dataloader(self) -> Any:
        return DataLoader(torch.zeros(4, 1))


def trainer(uri: str, endpoint: str, **arguments: Any) -> Trainer:
    plugin = arguments.pop("plugin", None) or S3LightningCheckpoint("us-east-1", endpoint=endpoint)
    # Not Lightning's default, which writes to S3 by other packages if TensorBoard is installed.
    logger = arguments.pop("logger", None)
    logger = CSVLogger(uri) if logger is None else logger
    return Trainer(default_root_dir=uri, plugins=[plugin], logger=logger, **QUIET, **arguments)
