"""Servers that take the checksums of parts and refuse the completion: what can be written again is, without them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

from s3torchconnector import S3Checkpoint, S3CheckpointManager, S3ClientConfig, S3Exception
from s3torchconnector._datasets import _manifest_object
from s3torchconnector._datasets._build import build
from s3torchconnector._datasets._rows import Row
from s3torchconnector._transfer import start_over_if_refused
from s3torchconnector.dcp import S3StorageReader, S3StorageWriter
from tests.every_server.test_checksums import RefusesAtTheEnd
from tests.every_server.test_equal_parts import sizes_of as sizes_of_parts_but_the_last
from tests.reading.support import PART, client_of
from tests.servers.stand_ins import AwsLike

pytestmark = pytest.mark.usefixtures("s3_server")  # for its keys
STATE = {"a": torch.arange(750_000), "b": torch.arange(50_000), "c": torch.ones(3)}  # 6.4 MB: two parts
Settings = dict[str, Any]
Save = Callable[[Settings], dict[str, torch.Tensor]]


def safetensors(settings: Settings) -> dict[str, torch.Tensor]:
    checkpoint = S3Checkpoint("us-east-1", **settings)
    checkpoint.save_safetensors(STATE, "s3://bucket/key")
    return checkpoint.load_safetensors("s3://bucket/key")


def managed(settings: Settings) -> dict[str, torch.Tensor]:
    with closing(S3CheckpointManager("s3://bucket/run", "us-east-1", **settings)) as manager:
        manager.save(1, STATE)
        return dict(manager.load())


def managed_in_background(settings: Settings) -> dict[str, torch.Tensor]:
    with closing(S3CheckpointManager("s3://bucket/run", "us-east-1", **settings)) as manager:
        manager.save_async(1, STATE).result()
        return dict(manager.load())


def distributed(settings: Settings) -> dict[str, torch.Tensor]:
    dcp.save(STATE, storage_writer=S3StorageWriter("us-east-1", "s3://bucket/dcp", **settings))
    loaded = {name: torch.zeros_like(tensor) for name, tensor in STATE.items()}
    dcp.load(loaded, storage_reader=S3StorageReader("us-east-1", "s3://bucket/dcp", **settings))
    return loaded


def lightning(settings: Settings) -> dict[str, torch.Tensor]:
    from s3torchconnector.lightning import S3LightningCheckpoint  # takes seconds, and tests/docs collects this file

    plugin = S3LightningCheckpoint("us-east-1", **settings)
    plugin.save_checkpoint(STATE, "s3://bucket/last.ckpt")
    return plugin.load_checkpoint("s3://bucket/last.ckpt", weights_only=True)


SAVES = pytest.mark.parametrize("save", [safetensors, managed, managed_in_background, distributed, lightning])
LOCAL = pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")


def completions(memory: AwsLike) -> int:
    return memory.count("POST", "uploadId")


@LOCAL
@SAVES
def test_bytes_still_in_memory_are_written_again(save: Save, caplog: pytest.LogCaptureFixture) -> None:
    memory = RefusesAtTheEnd()
    with memory.serve() as server, caplog.at_level(logging.INFO, "s3torchconnector"):
        loaded = save({"endpoint": server.endpoint, "s3client_config": S3ClientConfig(max_attempts=2, part_size=PART)})
    assert loaded.keys() == STATE.keys()
    assert all(torch.equal(loaded[name], STATE[name]) for name in STATE)
    assert memory.uploads == {}
    assert completions(memory) == 4  # in three forms with checksums, and then without
    assert caplog.text.count("is written again, without checksums") == 1
    assert len([record for record in caplog.records if "accept checksums with uploads" in record.getMessage()]) == 1


@LOCAL
@SAVES
def test_required_is_never_weaker(save: Save) -> None:
    memory = RefusesAtTheEnd()
    with memory.serve() as server:
        config = S3ClientConfig(max_attempts=2, part_size=PART, checksum="required")
        with pytest.raises((S3Exception, CheckpointException), match="InvalidDigest"):
            save({"endpoint": server.endpoint, "s3client_config": config})
    assert completions(memory) == 1
    assert memory.objects == {}
    begun = [each for each in memory.requests if "uploads" in each.query and each.method == "POST"]
    assert all("x-amz-checksum-algorithm" in each.headers for each in begun)


def test_a_manifest_is_written_again_in_equal_parts() -> None:
    memory = RefusesAtTheEnd()
    rows = build(Row("bucket", f"{'k' * 600}{number:06}", 1, f'"{number:032x}"') for number in range(20_000))
    with memory.serve() as server, client_of(server.endpoint) as client:
        _manifest_object.store(client, "s3://bucket/manifest", rows, overwrite=False)
    assert memory.objects["manifest"].data == bytes(rows.memory.view)
    assert completions(memory) == 4
    assert set(sizes_of_parts_but_the_last(memory)) == {PART}


def test_a_refusal_for_another_reason_is_raised_at_once() -> None:
    attempts = []

    def store() -> None:
        attempts.append(1)
        raise S3Exception("no room")

    with pytest.raises(S3Exception, match="no room"):
        start_over_if_refused(store)
    assert len(attempts) == 1
