"""Accelerate, the real package, on two ranks: every sample once, or an error that says what to do."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader, Dataset

from s3torchconnector import S3DataLoader, S3IterableDataset, S3Manifest, S3MapDataset, S3StreamingDataset
from s3torchconnector.testing import S3Server
from tests.dcp.support import run_ranks
from tests.streaming.support import number, numbered, options

COUNT = 24  # batches of all ranks without a rest, so that nothing is repeated
EVERYTHING = list(range(COUNT))


def streaming(manifest: S3Manifest, **changes: Any) -> S3StreamingDataset:
    return S3StreamingDataset(manifest, transform=number, batch_size=4, seed=5, **changes)


def in_order(manifest: S3Manifest, enable_sharding: bool) -> S3IterableDataset:
    return S3IterableDataset.from_manifest(manifest, transform=number, enable_sharding=enable_sharding)


def whole(manifest: S3Manifest) -> S3StreamingDataset:
    return streaming(manifest, num_replicas=1, rank=0)


def resumed(manifest: S3Manifest, epoch: int) -> S3StreamingDataset:
    dataset = whole(manifest)
    dataset.load_state_dict({**dataset.state_dict(), "epoch": epoch, "position": 8})
    return dataset


# By name, what is prepared, and how: (the dataset, how Accelerate shares out, options of the DataLoader)
Case = tuple[Callable[[S3Manifest], Dataset[Any]], dict[str, Any], dict[str, Any]]
ERRORS: dict[str, Case] = {
    "one rank reads for all": (streaming, {}, {}),
    "one rank reads for all, in forked workers": (streaming, {}, {"num_workers": 1}),
    "each rank keeps some": (streaming, {"dispatch_batches": False}, {}),
    "each rank keeps some, in spawned workers": (
        streaming, {"dispatch_batches": False}, {"num_workers": 1, "multiprocessing_context": "spawn"},
    ),
    "sharded, one rank reads for all": (lambda manifest: in_order(manifest, True), {}, {}),
    "sharded, each rank keeps some": (lambda manifest: in_order(manifest, True), {"dispatch_batches": False}, {}),
    "resumed in another epoch": (lambda manifest: resumed(manifest, 3), {}, {}),
}  # fmt: skip
GOOD: dict[str, Case] = {
    "one replica": (whole, {}, {}),
    "one replica, each rank keeps some": (whole, {"dispatch_batches": False}, {"num_workers": 1}),
    "not sharded": (lambda manifest: in_order(manifest, False), {}, {}),
    "by index": (lambda manifest: S3MapDataset.from_manifest(manifest, transform=number), {}, {"shuffle": True}),
    "resumed in the first epoch": (lambda manifest: resumed(manifest, 0), {}, {}),
}


def job(rank: int, manifest: S3Manifest, folder: Path) -> None:
    from accelerate import Accelerator
    from accelerate.utils import DataLoaderConfiguration

    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")

    def prepared(case: Case) -> Iterator[Any]:
        make, sharing, loading = case
        accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(**sharing))
        return iter(accelerator.prepare(DataLoader(make(manifest), batch_size=4, **loading)))

    outcomes: dict[str, Any] = {}
    for name, case in ERRORS.items():
        try:
            outcomes[name] = str(list(prepared(case)))
        except ValueError as error:
            outcomes[name] = str(error)
    for name, case in GOOD.items():
        outcomes[name] = [sample for batch in prepared(case) for sample in batch.tolist()]
    outcomes["not prepared"] = [sample for batch in S3DataLoader(streaming(manifest)) for sample in batch.tolist()]
    (folder / str(rank)).write_text(json.dumps(outcomes))


@pytest.fixture(scope="module")
def manifest(s3_server: S3Server) -> S3Manifest:
    s3_server.make_bucket("accelerate")
    return S3Manifest.from_prefix(numbered(s3_server, "accelerate", COUNT), **options(s3_server))


def test_accelerate_gives_every_sample_once_or_says_what_to_do(manifest: S3Manifest, tmp_path: Path) -> None:
    run_ranks(2, job, manifest, tmp_path)
    ranks = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(2)]
    for name in ERRORS:
        for outcomes in ranks:
            assert "accelerator.prepare()" in outcomes[name], name
    for name in [*GOOD, "not prepared"]:
        seen = sorted(sample for outcomes in ranks for sample in outcomes[name])
        if name == "resumed in the first epoch":
            assert seen == sorted(list(whole(manifest))[8:])
        else:
            assert seen == EVERYTHING, name
