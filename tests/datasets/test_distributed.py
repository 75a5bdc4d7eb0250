"""Sharding over the ranks of a real job (gloo, a file as its store) and their DataLoader workers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch.distributed
import torch.multiprocessing
from torch.utils.data import DataLoader

from s3torchconnector import S3IterableDataset
from s3torchconnector.testing import S3Server
from tests.datasets.contract import CONTENTS, SAMPLES, fill
from tests.datasets.support import key_and_bytes

KEYS = [key for key, _ in SAMPLES]
WORLD_SIZE = 2


def keys_of(dataset: S3IterableDataset, method: str | None = None, workers: int = 2) -> list[str]:
    """An epoch's keys, in the process itself or by workers."""
    loader: DataLoader[Any] = DataLoader(
        dataset, batch_size=None, num_workers=workers if method else 0, multiprocessing_context=method,
        timeout=60 if method else 0,
    )  # fmt: skip
    return [key for key, _ in loader]


def join_group(store: Path, rank: int, world_size: int) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)


def run_rank(rank: int, dataset: S3IterableDataset, folder: Path) -> None:
    """What one rank sees, phase by phase, as JSON."""
    os.environ.update(RANK="5", WORLD_SIZE="7")  # an initialised group has precedence
    seen = {"environment": keys_of(dataset), "environment, forked": keys_of(dataset, "fork")}
    join_group(folder / "store", rank, WORLD_SIZE)
    seen["group"] = keys_of(dataset)
    seen["group, forked"] = keys_of(dataset, "fork")
    seen["group, spawned"] = keys_of(dataset, "spawn", workers=1)
    torch.distributed.destroy_process_group()
    join_group(folder / f"store of {rank}", 0, 1)
    seen["smaller group"] = keys_of(dataset)
    seen["smaller group, forked"] = keys_of(dataset, "fork")
    torch.distributed.destroy_process_group()
    seen["environment again"] = keys_of(dataset)
    (folder / f"seen by {rank}").write_text(json.dumps(seen))


@pytest.fixture(scope="module")
def seen(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[str]]]:
    """What each rank saw, by phase. The dataset is made here, long before there is a process group."""
    folder = tmp_path_factory.mktemp("job")
    s3_server.make_bucket("distributed")
    fill(s3_server, "distributed", CONTENTS)
    dataset = S3IterableDataset.from_prefix(
        "s3://distributed", region=s3_server.region, endpoint=s3_server.endpoint,
        transform=key_and_bytes, enable_sharding=True,
    )  # fmt: skip
    torch.multiprocessing.start_processes(run_rank, (dataset, folder), WORLD_SIZE, start_method="forkserver")
    return [json.loads((folder / f"seen by {rank}").read_text()) for rank in range(WORLD_SIZE)]


@pytest.mark.parametrize("phase", ["group", "group, forked", "group, spawned"])
def test_ranks_share_the_samples_and_none_is_lost_or_doubled(seen: list[dict[str, list[str]]], phase: str) -> None:
    assert sorted(key for rank in seen for key in rank[phase]) == KEYS
    for rank in range(WORLD_SIZE):
        assert sorted(seen[rank][phase]) == KEYS[rank::WORLD_SIZE]


@pytest.mark.parametrize("phase", ["smaller group", "smaller group, forked"])
def test_sharding_uses_the_group_as_iteration_starts(seen: list[dict[str, list[str]]], phase: str) -> None:
    assert [sorted(rank[phase]) for rank in seen] == [KEYS, KEYS]


@pytest.mark.parametrize("phase", ["environment", "environment, forked", "environment again"])
def test_without_a_group_the_environment_gives_the_rank(seen: list[dict[str, list[str]]], phase: str) -> None:
    assert [sorted(rank[phase]) for rank in seen] == [KEYS[5::7]] * 2


def test_without_sharding_ranks_see_everything(
    s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(s3_server, bucket, CONTENTS)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    dataset = S3IterableDataset.from_prefix(
        f"s3://{bucket}", region=s3_server.region, endpoint=s3_server.endpoint, transform=key_and_bytes
    )
    assert keys_of(dataset) == KEYS
