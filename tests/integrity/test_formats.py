"""What loads whole files by pieces of them verifies these files too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save

from s3torchconnector import S3Checkpoint, S3ClientConfig
from s3torchconnector._errors import S3ChecksumError
from s3torchconnector._safetensors._header import header_bytes
from s3torchconnector.dcp import S3StorageReader, S3StorageWriter
from s3torchconnector.testing import S3Server
from tests.integrity.flipping import FlippedObject
from tests.integrity.support import CRC32, CRC64NVME, ChecksummedObject
from tests.reading.support import PART
from tests.servers.http_messages import ReceivedRequest, response
from tests.servers.scripted import ScriptedServer

CONFIG = S3ClientConfig(part_size=PART)
TENSORS = {"a": torch.arange(2 * 2**20), "b": torch.ones(100, 100)}


def safetensors() -> bytes:
    return bytes(save(TENSORS))


def stored_checkpoint(server: S3Server, bucket: str) -> dict[str, bytes]:
    """The files of a distributed checkpoint of ``TENSORS``."""
    writer = S3StorageWriter("us-east-1", f"s3://{bucket}", s3client_config=CONFIG)
    dcp.save(dict(TENSORS), storage_writer=writer)
    return {path.name: path.read_bytes() for path in (server.folder / bucket).iterdir()}


@contextmanager
def serving(files: dict[str, ChecksummedObject]) -> Iterator[str]:
    def answer(request: ReceivedRequest) -> Any:
        file = files.get(request.path.rpartition("/")[2])
        return file(request) if file else response(404)

    with ScriptedServer(handler=answer) as server:
        yield server.endpoint


@pytest.mark.usefixtures("s3_server")
@pytest.mark.parametrize("wrong", [None, 0, 1])
def test_safetensors(wrong: int | None) -> None:
    data = safetensors()
    assert header_bytes(memoryview(data), len(data)) < PART
    starts: list[int] = []

    def spoil(start: int, times: int) -> bool:
        starts.append(start)
        return wrong is not None and start > 0 and starts.index(start) == wrong + 1

    with serving({"f": ChecksummedObject(data, spoil=spoil)}) as endpoint:
        checkpoint = S3Checkpoint("us-east-1", endpoint=endpoint, s3client_config=CONFIG)
        if wrong is None:
            loaded = checkpoint.load_safetensors("s3://b/f")
            assert all(torch.equal(loaded[name], tensor) for name, tensor in TENSORS.items())
        else:
            with pytest.raises(S3ChecksumError, match=f"s3://b/f: bytes 0 to {len(data)} "):
                checkpoint.load_safetensors("s3://b/f")


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")  # a checkpoint of one process
@pytest.mark.parametrize("wrong", [False, True])
def test_distributed_checkpoints(s3_server: S3Server, bucket: str, wrong: bool) -> None:
    files = {
        name: ChecksummedObject(data, spoil=lambda start, times, name=name: wrong and start > 0 and name != ".metadata")
        for name, data in stored_checkpoint(s3_server, bucket).items()
    }
    state = {name: torch.zeros_like(tensor) for name, tensor in TENSORS.items()}
    with serving(files) as endpoint:
        reader = S3StorageReader("us-east-1", f"s3://{bucket}", endpoint=endpoint, s3client_config=CONFIG)
        if wrong:
            with pytest.raises(
                dcp.api.CheckpointException, match=r"(?s)S3ChecksumError.*are not those that were stored"
            ):
                dcp.load(state, storage_reader=reader)
        else:
            dcp.load(state, storage_reader=reader)
            assert all(torch.equal(state[name], tensor) for name, tensor in TENSORS.items())
    assert any(file.spoilt for file in files.values()) == wrong


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")  # a checkpoint of one process
@pytest.mark.parametrize("wrong", [False, True])
def test_a_distributed_checkpoint_whose_checksum_comes_last(s3_server: S3Server, bucket: str, wrong: bool) -> None:
    """And is not of the kind that .metadata has."""
    stored = stored_checkpoint(s3_server, bucket)
    flip = len(max(stored.values(), key=len)) // 2 if wrong else None
    files: dict[str, ChecksummedObject] = {
        name: FlippedObject(data, [CRC64NVME])
        if name == ".metadata"
        else FlippedObject(data, [CRC32], flip, late=len(data))
        for name, data in stored.items()
    }
    state = {name: torch.zeros_like(tensor) for name, tensor in TENSORS.items()}
    config = replace(CONFIG, checksum="required")
    with serving(files) as endpoint:
        reader = S3StorageReader("us-east-1", f"s3://{bucket}", endpoint=endpoint, s3client_config=config)
        if wrong:
            with pytest.raises(dcp.api.CheckpointException, match="S3ChecksumError"):
                dcp.load(state, storage_reader=reader)
        else:
            dcp.load(state, storage_reader=reader)
            assert all(torch.equal(state[name], tensor) for name, tensor in TENSORS.items())
