"""Checkpoints on every server: torch.save, DCP, safetensors, the manager, and what interrupted saves left."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp

from s3torchconnector import S3Checkpoint, S3CheckpointManager, S3ClientConfig
from s3torchconnector._wire import operations, read_document
from s3torchconnector.dcp import S3StorageReader, S3StorageWriter
from tests.dcp.support import blank, same
from tests.every_server.conftest import Server
from tests.reading.support import PART

CONFIG = S3ClientConfig(part_size=PART, max_attempts=3)
SUMLESS = S3ClientConfig(part_size=PART, max_attempts=3, checksum="off")


def config_of(server: Server) -> S3ClientConfig:
    """RustFS returns wrong checksums; only a client that does not ask for them works with it."""
    if server.name != "RustFs":
        return CONFIG
    server.limit("by setting", 'with `checksum="off"`')
    return SUMLESS


def state_of(step: int) -> dict[str, Any]:
    """A tensor of two parts, and small ones."""
    return {"large": torch.arange(800_000) + step, "small": torch.ones(7) * step, "step": step}


def test_torch_saves_and_loads(server: Server) -> None:
    checkpoint = S3Checkpoint("us-east-1", endpoint=server.endpoint, s3client_config=config_of(server))
    with checkpoint.writer(server.uri("epoch=1.pt")) as writer:
        torch.save(state_of(1), writer)
    with checkpoint.reader(server.uri("epoch=1.pt")) as reader:
        assert same(torch.load(reader), state_of(1))


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_a_distributed_checkpoint_is_saved_and_loaded(server: Server) -> None:
    settings = {"endpoint": server.endpoint, "s3client_config": config_of(server)}
    arguments = ("us-east-1", server.uri("run/step=1"))
    dcp.save(state_of(2), storage_writer=S3StorageWriter(*arguments, **settings))  # type: ignore[arg-type]
    state = blank(state_of(2))
    dcp.load(state, storage_reader=S3StorageReader(*arguments, **settings))  # type: ignore[arg-type]
    assert same(state, state_of(2))


def test_safetensors_are_saved_and_loaded(server: Server) -> None:
    checkpoint = S3Checkpoint("us-east-1", endpoint=server.endpoint, s3client_config=config_of(server))
    tensors = {name: value for name, value in state_of(3).items() if isinstance(value, torch.Tensor)}
    checkpoint.save_safetensors(tensors, server.uri("model.safetensors"))
    assert same(checkpoint.load_safetensors(server.uri("model.safetensors")), tensors)


def test_the_manager_saves_loads_verifies_and_cleans(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    manager = S3CheckpointManager(
        server.uri("run"), "us-east-1", endpoint=server.endpoint, s3client_config=config_of(server), keep_last=1
    )
    with ExitStack() as stack:
        stack.callback(manager.close)
        client = stack.enter_context(server.client())
        begun = operations.create_multipart_upload(server.bucket, "run/step-0000000003/0123456789abcdef/rank=1 ö.pt")
        client._runtime().caller.call(begun, read_document)
        for step in (1, 2):
            manager.save(step, state_of(step))
        assert manager.steps() == [2]
        assert same(manager.load(), state_of(2))
        manager.verify(2)
        left = manager.clean(dry_run=False, min_age=-1e9)
        if server.name == "S3rver":
            server.limit("in part", "`clean` finds no unfinished uploads, as the server lists none, and says so")
            assert "could not be listed" in caplog.text
        else:
            assert [uri.rpartition("/")[2] for uri in left.uploads] == ["rank=1 ö.pt"]
            assert list(client.list_multipart_uploads(server.bucket)) == []
