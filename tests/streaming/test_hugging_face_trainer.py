"""The Hugging Face Trainer, the real package, on two ranks: every sample once, or an error that says what to do."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from s3torchconnector import S3DataLoader, S3Manifest, S3MapDataset, S3Reader, S3StreamingDataset
from s3torchconnector.testing import S3Server
from tests.dcp.support import run_ranks
from tests.streaming.support import numbered, options

COUNT = 24
EVERYTHING = list(range(COUNT))


def sample(reader: S3Reader) -> dict[str, int]:
    return {"number": int(reader.read())}


class Model(torch.nn.Module):
    """Notes what it is trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[int] = []

    def forward(self, number: torch.Tensor) -> dict[str, torch.Tensor]:
        self.seen += number.tolist()
        return {"loss": (self.weight * number).sum()}


def job(rank: int, manifest: S3Manifest, folder: Path) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", ACCELERATE_USE_CPU="true")
    from transformers import Trainer, TrainerCallback, TrainingArguments

    def streaming() -> S3StreamingDataset:
        return S3StreamingDataset(manifest, transform=sample, batch_size=4, seed=5)

    def train(
        dataset: Dataset[Any] | None,
        loader: S3DataLoader | None = None,
        resumed_from: str | None = None,
        **changes: Any,
    ) -> list[int]:
        arguments = TrainingArguments(
            output_dir=str(folder), use_cpu=True, report_to=[], disable_tqdm=True, per_device_train_batch_size=4,
            save_strategy=changes.pop("save_strategy", "no"), **changes,
        )  # fmt: skip

        class OnLoader(Trainer):  # as docs/guide/datasets.md has it
            def get_train_dataloader(self) -> Any:
                return super().get_train_dataloader() if loader is None else loader

        class SaveLoader(TrainerCallback):
            def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                place = folder / f"checkpoint-{state.global_step}" / f"loader-{rank}.json"
                if loader is not None:
                    place.write_text(json.dumps(loader.state_dict()))

        model = Model()
        trainer = OnLoader(model, arguments, train_dataset=dataset or (loader and loader.dataset))
        trainer.add_callback(SaveLoader())
        trainer.train(resume_from_checkpoint=resumed_from)
        return model.seen

    outcomes: dict[str, Any] = {}
    try:
        outcomes["error"] = str(train(streaming(), num_train_epochs=1))
    except ValueError as error:
        outcomes["error"] = str(error)
    by_index = S3MapDataset.from_manifest(manifest, transform=sample)
    outcomes["by index"] = train(by_index, num_train_epochs=1)
    outcomes["loader"] = train(None, S3DataLoader(streaming()), num_train_epochs=1)
    first = train(None, S3DataLoader(streaming()), max_steps=1, save_strategy="steps", save_steps=1)
    again = S3DataLoader(streaming())
    again.load_state_dict(json.loads((folder / "checkpoint-1" / f"loader-{rank}.json").read_text()))
    rest = train(None, again, resumed_from=str(folder / "checkpoint-1"), max_steps=3, ignore_data_skip=True)
    outcomes["resumed"] = first + rest
    (folder / str(rank)).write_text(json.dumps(outcomes))


@pytest.fixture(scope="module")
def manifest(s3_server: S3Server) -> S3Manifest:
    s3_server.make_bucket("trainer")
    return S3Manifest.from_prefix(numbered(s3_server, "trainer", COUNT), **options(s3_server))


def test_the_trainer_has_every_sample_once_or_says_what_to_do(manifest: S3Manifest, tmp_path: Path) -> None:
    run_ranks(2, job, manifest, tmp_path)
    ranks = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(2)]
    assert all("accelerator.prepare()" in outcomes["error"] for outcomes in ranks)
    for name in ("by index", "loader", "resumed"):
        assert sorted(sample for outcomes in ranks for sample in outcomes[name]) == EVERYTHING, name
