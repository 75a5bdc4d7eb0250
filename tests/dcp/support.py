"""What the tests of distributed checkpoints share: states, readers and writers, and groups of real ranks."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing

from s3torchconnector import S3ClientConfig
from s3torchconnector._s3client import S3Client
from s3torchconnector.dcp import S3StorageReader, S3StorageWriter

REGION = "us-east-1"
PART = 5 * 1024**2
CONFIG = S3ClientConfig(part_size=PART, max_attempts=2)


def writer_of(path: str, **options: Any) -> S3StorageWriter:
    return S3StorageWriter(REGION, path, options.pop("s3client_config", CONFIG), **options)


def reader_of(path: str, **options: Any) -> S3StorageReader:
    return S3StorageReader(REGION, path, options.pop("s3client_config", CONFIG), **options)


def mixed_state(seed: int = 0) -> dict[str, Any]:
    """Tensors of many kinds, some larger than a part, and what is no tensor at all."""
    random = torch.Generator().manual_seed(seed)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    return {
        "large": numbers(1500, 2000),  # 12 MB: three requests
        "medium": {str(number): numbers(100, 300 + number) for number in range(12)},
        "small": {str(number): numbers(number + 1, 3).to(torch.bfloat16) for number in range(20)},
        "kinds": {
            "scalar": torch.tensor(float(seed)),
            "empty": torch.empty(0, 3),
            "transposed": numbers(200, 300).t(),
            "complex": torch.view_as_complex(numbers(200, 200, 2)),
            "conjugate": torch.view_as_complex(numbers(200, 200, 2)).conj(),
            "float8": numbers(300, 300).to(torch.float8_e4m3fn),
            "booleans": numbers(300, 300) > 0,
            "integers": torch.arange(50_000),
            "part of a storage": numbers(400, 400)[100:200],
        },
        "step": seed,
        "names": ["a", {"b": 2.5}],
    }


def blank(state: Any) -> Any:
    """The same tensors without their numbers, and None in place of everything that is not a container."""
    if isinstance(state, dict):
        return {name: blank(value) for name, value in state.items()}
    if isinstance(state, list):
        return [blank(value) for value in state]
    return torch.zeros(state.shape, dtype=state.dtype) if isinstance(state, torch.Tensor) else None


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and one.tolist() == other.tolist()
    return bool(one == other)


def load(path: str, like: dict[str, Any], **options: Any) -> dict[str, Any]:
    state = blank(like)
    dcp.load(state, storage_reader=reader_of(path, **options))
    return state


def keys_of(bucket: str, prefix: str = "", endpoint: str | None = None) -> list[str]:
    with S3Client(REGION, endpoint=endpoint) as client:
        return [info.key for page in client.list_objects(bucket, prefix) for info in page.object_info]


def run_ranks(count: int, job: Callable[..., None], *arguments: Any) -> None:
    """Run ``job(rank, *arguments)`` in processes that form a gloo group; raises the first error of any of them."""
    with tempfile.TemporaryDirectory() as folder:
        group = arguments_of_group(count, Path(folder) / "store", job, *arguments)
        ranks = torch.multiprocessing.start_processes(in_group, group, count, join=False, start_method="forkserver")
        try:
            while not ranks.join():
                pass
        finally:
            for process in ranks.processes:
                process.kill()


def arguments_of_group(count: int, store: Path, job: Callable[..., None], *arguments: Any) -> tuple[Any, ...]:
    """What ``in_group`` is called with after the rank, by processes that do not inherit this one's environment."""
    return count, f"file://{store}", job, arguments, dict(os.environ)


def in_group(
    rank: int, count: int, store: str, job: Callable[..., None], arguments: tuple[Any, ...], environment: dict[str, str]
) -> None:
    """Be a rank, and do its job."""
    os.environ.clear()
    os.environ.update(environment)
    os.environ["MASTER_ADDR"] = "127.0.0.1"  # where saving processes meet
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=count)
    job(rank, *arguments)
    dist.barrier()  # meanwhile gloo's threads release tensors: a process that ends before that may abort
    # The group is not destroyed, but ends with the process: PyTorch 2.4 would wait for those threads while it holds the
    # interpreter's lock, for which they may wait.
