"""Distributed checkpoints by either connector: `torch.distributed.checkpoint` with their storage, on gloo ranks.

The state is a model of 100 layers, each a weight and a bias. On several ranks the weights and biases are sharded by
rows, as FSDP does. Imports and planners are warm: each rank has saved or loaded something small before the clock
starts. Readers and writers are made while it runs, as in every save of a program.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

from benchmarks.job import Job
from benchmarks.meter import Meter
from benchmarks.ranks import ready, together

if TYPE_CHECKING:
    import torch

    from s3torchconnector.dcp import S3StorageReader, S3StorageWriter

LAYERS, COLUMNS = 100, 2048
_TENTH = 10  # every so many layers are a tenth of the tensors
_COUNTER = "/-/sent"  # of servers/nginx.conf


def workloads() -> dict[str, Callable[[Job, Meter], int]]:
    """The functions by name."""
    works = {"dcp-load": _load, "dcp-partial": _load_part, "dcp-save": _save, "dcp-async": _save_async}
    return {name: partial(together, work) for name, work in works.items()}


def staging(job: Job, meter: Meter) -> int:
    """The limit of `dcp-async`: the copy of the state that PyTorch makes, and nothing else."""
    return together(_stage, job, meter)


def model_state(size: int, value: float | None = None, step: int = 1) -> dict[str, torch.Tensor]:
    """Every `step`th layer of a model of about `size` bytes, in memory whose pages exist.

    The numbers of a layer are its number, or all are `value`.
    """
    import torch.distributed as dist

    rows = size // LAYERS // COLUMNS // 4 // dist.get_world_size()
    shapes = {"weight": (rows, COLUMNS), "bias": (COLUMNS // dist.get_world_size(),)}
    return {
        f"layer{number}.{name}": _sharded(shape, float(number) if value is None else value)
        for number in range(0, LAYERS, step)
        for name, shape in shapes.items()
    }


def store(folder: str, size: int, ranks: int) -> None:
    """Have PyTorch store the model's state in local files: what `dcp-load` loads."""
    job = Job(bucket="", size=size, small_size=0, objects=0, copy=folder, ranks=ranks)
    together(_store, job, Meter())


def _store(job: Job, _: Meter) -> int:
    import torch.distributed.checkpoint as dcp

    dcp.save(model_state(job.size), storage_writer=dcp.FileSystemWriter(job.copy))
    return 0


def _load(job: Job, meter: Meter) -> int:
    """Load the model. Returns the bytes of this rank's tensors."""
    return _load_into(job, meter, model_state(job.size, value=-1.0))


def _load_part(job: Job, meter: Meter) -> int:
    """Load a tenth of the tensors, and count what the server sends meanwhile."""
    before = _sent(job)
    amount = _load_into(job, meter, model_state(job.size, value=-1.0, step=_TENTH), warm=False)
    meter.transferred = _sent(job) - before
    return amount


def _load_into(job: Job, meter: Meter, state: dict[str, torch.Tensor], warm: bool = True) -> int:
    import torch.distributed.checkpoint as dcp

    if warm:
        dcp.load({"layer0.bias": state["layer0.bias"]}, storage_reader=_reader(job))
    ready()
    with meter:
        dcp.load(state, storage_reader=_reader(job))
    for name, tensor in state.items():
        expected = float(name.removeprefix("layer").split(".")[0])
        if not (_local(tensor) == expected).all():
            raise AssertionError(f"{name} should hold {expected}")
    return _bytes(state)


def _save(job: Job, meter: Meter) -> int:
    """Save the model. Returns the bytes of this rank's tensors."""
    import torch.distributed.checkpoint as dcp

    state = model_state(job.size)
    dcp.save(_little(), storage_writer=_writer(job, "warm"))
    ready()
    with meter:
        dcp.save(state, storage_writer=_writer(job, "saved"))
    return _bytes(state)


def _save_async(job: Job, meter: Meter) -> int:
    """Save the model in the background; measured is for how long the caller is blocked."""
    import torch.distributed.checkpoint as dcp

    state = model_state(job.size)
    dcp.async_save(_little(), storage_writer=_writer(job, "warm")).result()
    _copy(state)
    ready()
    with meter:
        saving = dcp.async_save(state, storage_writer=_writer(job, "saved"))
    saving.result()
    return _bytes(state)


def _stage(job: Job, meter: Meter) -> int:
    state = model_state(job.size)
    _copy(state)
    ready()
    with meter:
        staged = _copy(state)
    return _bytes(staged)


def _copy(state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The state as it is staged. Done once before it is measured: memory that the machine gives for the first time
    takes many times as long.
    """
    from torch.distributed.checkpoint.staging import BlockingAsyncStager

    return dict(BlockingAsyncStager().stage(state))


def _little() -> dict[str, torch.Tensor]:
    import torch

    return {"little": torch.ones(10)}


def _sharded(shape: tuple[int, ...], value: float) -> torch.Tensor:
    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard

    local = torch.full(shape, value)
    ranks = dist.get_world_size()
    return DTensor.from_local(local, init_device_mesh("cpu", (ranks,)), [Shard(0)]) if ranks > 1 else local


def _local(tensor: torch.Tensor) -> torch.Tensor:
    to_local = getattr(tensor, "to_local", None)
    return to_local() if to_local else tensor


def _bytes(state: dict[str, Any]) -> int:
    return sum(_local(tensor).nbytes for tensor in state.values())


def _writer(job: Job, name: str) -> S3StorageWriter:
    from s3torchconnector.dcp import S3StorageWriter

    return S3StorageWriter(job.region, job.uri(f"{job.prefix}{name}"), s3client_config=config(job))


def _reader(job: Job) -> S3StorageReader:
    from s3torchconnector.dcp import S3StorageReader

    return S3StorageReader(job.region, job.uri(job.stored(job.ranks)), s3client_config=config(job))


def config(job: Job) -> Any:
    """The client's settings, with the endpoint in the environment."""
    from s3torchconnector import S3ClientConfig

    if job.endpoint:
        os.environ["AWS_ENDPOINT_URL"] = job.endpoint  # 1.5.0's storage has no parameter for it
    return S3ClientConfig(force_path_style=job.path_style)


def _sent(job: Job) -> int:
    """Bytes of bodies that our server has sent, once that stays the same: it counts at the end of each response."""
    if job.signed:
        return 0  # a server that does not count
    last = -1
    while True:
        with urlopen(f"{job.endpoint}{_COUNTER}") as response:
            now = int(response.read())
        if now == last:
            return now
        last = now
        time.sleep(0.2)
