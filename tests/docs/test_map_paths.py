"""docs/internals/map.md: each path is the one that the operation takes, by a trace of it on a real server."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
import torch
import torch.distributed.checkpoint as dcp

from s3torchconnector import S3Checkpoint, S3ClientConfig, S3IterableDataset, S3MapDataset, S3Reader
from s3torchconnector.dcp import S3StorageReader, S3StorageWriter
from s3torchconnector.testing import S3Server
from tests.docs.pages import INTERNALS
from tests.docs.tracing import tracing

_MAP = INTERNALS["map"]
_MIB = 1024 * 1024
_MOST_FILES = 30
# What calls jobs on threads: the path to a request begins after these.
_THREADS = {"_threads.py", "_transfer/engine/_worker_share.py", "_transfer/engine/_workers.py"}
# By the heading of a path, that of another one which the operation takes as well.
_ALSO = {"A small read": "A listing", "A distributed save": "A write"}
_Operation = Callable[[str, str, S3ClientConfig], object]


def _drawn(title: str) -> tuple[list[str], set[tuple[str, str]]]:
    """The files of a path, in its order, and its functions, each with its file."""
    lines = re.findall(r"^([\w/]+\.py) +(.*)$", _MAP.section(title), re.MULTILINE)
    functions = {
        (file, name.rpartition(".")[2])
        for file, text in lines
        for name in re.findall(r"\b[A-Z]\w+\.\w+|^\w+(?=:)", text)
    }
    return [file for file, _ in lines], functions


def _write(bucket: str, region: str, config: S3ClientConfig, key: str = "large", size: int = 40 * _MIB) -> None:
    with S3Checkpoint(region, s3client_config=config).writer(f"s3://{bucket}/{key}") as writer:
        writer.write(bytes(size))


def _write_small(bucket: str, region: str, config: S3ClientConfig) -> None:
    for number in range(4):
        _write(bucket, region, config, f"small/{number}", 1000)


def _read_small(bucket: str, region: str, config: S3ClientConfig) -> None:
    uri = f"s3://{bucket}/small/"
    dataset = S3IterableDataset.from_prefix(uri, region=region, transform=S3Reader.read, s3client_config=config)
    assert list(map(len, dataset)) == [1000] * 4


def _read_large(bucket: str, region: str, config: S3ClientConfig) -> None:
    buffer, count = bytearray(10 * _MIB), 0
    with S3Checkpoint(region, s3client_config=config).reader(f"s3://{bucket}/large") as reader:
        while received := reader.readinto(buffer):
            count += received
    assert count == 40 * _MIB


def _state() -> dict[str, torch.Tensor]:
    return {"large": torch.ones(4 * _MIB), "small": torch.ones(8)}


def _save(bucket: str, region: str, config: S3ClientConfig) -> None:
    writer = S3StorageWriter(region, f"s3://{bucket}/checkpoint", config)
    dcp.save(_state(), storage_writer=writer, no_dist=True)


def _load(bucket: str, region: str, config: S3ClientConfig) -> None:
    state = {name: torch.zeros_like(tensor) for name, tensor in _state().items()}
    dcp.load(state, storage_reader=S3StorageReader(region, f"s3://{bucket}/checkpoint", config), no_dist=True)
    assert all(bool(tensor.all()) for tensor in state.values())


def _list(bucket: str, region: str, config: S3ClientConfig) -> None:
    assert len(S3MapDataset.from_prefix(f"s3://{bucket}/small/", region=region, s3client_config=config)) == 4


# By the heading of the path: the operation, and what has to be done before, untraced.
_OPERATIONS: dict[str, tuple[_Operation, _Operation | None]] = {
    "A small read": (_read_small, _write_small),
    "A large read": (_read_large, _write),
    "A write": (_write, None),
    "A distributed save": (_save, None),
    "A distributed load": (_load, _save),
    "A listing": (_list, _write_small),
}


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")  # a checkpoint of one process
@pytest.mark.parametrize("title", _OPERATIONS)
def test_a_path_is_the_one_that_the_operation_takes(title: str, s3_server: S3Server, bucket: str) -> None:
    operation, before = _OPERATIONS[title]
    if before is not None:
        before(bucket, s3_server.region, S3ClientConfig())
    # Threads that run already are not traced: these settings are no other client's.
    config = S3ClientConfig(operation_timeout=200.0 + time.monotonic() % 1)
    with tracing() as trace:
        operation(bucket, s3_server.region, config)
    (files, functions), (of_requests, _) = _drawn(title), _drawn("Every request")
    assert sorted(functions - trace.called) == []
    also = _drawn(_ALSO[title])[0] if title in _ALSO else []
    assert sorted(trace.on_the_way - {*files, *of_requests, *also} - _THREADS) == []
    assert len({*files, *of_requests}) <= _MOST_FILES


def test_every_request_takes_the_path_that_is_drawn(s3_server: S3Server, bucket: str) -> None:
    config = S3ClientConfig(operation_timeout=200.0 + time.monotonic() % 1)
    with tracing() as trace:
        _write(bucket, s3_server.region, config)
    assert sorted(_drawn("Every request")[1] - trace.called) == []
