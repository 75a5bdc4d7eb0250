"""What ranks do in the tests: functions of a module, since ranks are separate processes. All assert."""

from __future__ import annotations

import itertools
import warnings
from multiprocessing.connection import Connection
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.planner import SavePlan
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from s3torchconnector.dcp import BinaryPrefixStrategy, HexPrefixStrategy
from tests.dcp.support import keys_of, mixed_state, reader_of, same, writer_of

ROWS = 1000


def numbers(seed: float = 0) -> torch.Tensor:
    return torch.arange(ROWS * 3000, dtype=torch.float32).reshape(ROWS, 3000) + seed  # 12 MB


def model_of(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(500, 400), nn.ReLU(), nn.Linear(400, 10))


def trained(model: nn.Module) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(4, 500)).sum().backward()
    optimizer.step()
    return optimizer


def whole(state: Any) -> Any:
    """The state with every DTensor gathered."""
    if isinstance(state, dict):
        return {name: whole(value) for name, value in state.items()}
    return state.full_tensor() if isinstance(state, DTensor) else state


def fsdp2_and_ddp(rank: int, path: str) -> None:
    """Save a trained model and optimizer, load them into others of the same kind, and compare; two kinds."""
    for kind in (fully_shard, DistributedDataParallel):
        here = f"{path}/{kind.__name__}"
        model = kind(model_of(0))
        names = ("model", "optimizer")
        optimizer = trained(model)
        saved = dict(zip(names, get_state_dict(model, optimizer), strict=True))
        dcp.save(saved, storage_writer=writer_of(here, thread_count=2, prefix_strategy=BinaryPrefixStrategy(1)))
        other = kind(model_of(1))
        its_optimizer = trained(other)
        state = dict(zip(names, get_state_dict(other, its_optimizer), strict=True))
        dcp.load(state, storage_reader=reader_of(here))
        set_state_dict(other, its_optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        assert same(whole(dict(other.state_dict())), whole(dict(model.state_dict())))
        found, expected = (each.state_dict()["state"] for each in (its_optimizer, optimizer))
        assert same(whole(found), whole(expected))


def save_sharded(rank: int, path: str) -> None:
    """Save tensors sharded by rows and by columns, one that all ranks have, and one of each rank."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    state = {
        "rows": distribute_tensor(numbers(), mesh, [Shard(0)]),
        "columns": distribute_tensor(numbers(1), mesh, [Shard(1)]),
        "replicated": distribute_tensor(numbers(2), mesh, [Replicate()]),
        f"of rank {rank}": torch.full((10,), rank),
        "step": 7,
    }
    dcp.save(state, storage_writer=writer_of(path))


def load_sharded(rank: int, path: str) -> None:
    """Load what one process saved, each rank its part."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for name, kind, seed in (("rows", Shard(0), 0), ("columns", Shard(1), 1), ("replicated", Replicate(), 2)):
        state = {name: distribute_tensor(torch.zeros(ROWS, 3000), mesh, [kind])}
        dcp.load(state, storage_reader=reader_of(path))
        assert torch.equal(state[name].full_tensor(), numbers(seed))


def async_in_thread_and_process(rank: int, path: str) -> None:
    """Save asynchronously in both ways; a change after ``async_save`` is not in the checkpoint."""
    for kind in AsyncCheckpointerType:
        here = f"{path}/{kind.value}"
        state = {f"of rank {rank}": torch.full((300, 300), float(rank)), "step": 1}
        saving = dcp.async_save(state, storage_writer=writer_of(here), async_checkpointer_type=kind)
        state[f"of rank {rank}"].zero_()
        saving.result()
        dcp.load(state, storage_reader=reader_of(here))
        assert state[f"of rank {rank}"].unique().tolist() == [float(rank)]


class Fails:
    """Cannot be saved."""

    def __reduce__(self) -> Any:
        raise KeyError("cannot be pickled")


def one_rank_fails(rank: int, path: str) -> None:
    """A save that fails on one rank fails on all, and the checkpoint is the one before."""
    name = f"of rank {rank}"
    dcp.save({name: torch.full((10,), 1)}, storage_writer=writer_of(path))
    with pytest.raises(CheckpointException, match="cannot be pickled"):
        dcp.save({name: torch.full((10,), 2), f"f{rank}": Fails() if rank else 0}, storage_writer=writer_of(path))
    with pytest.raises(CheckpointException, match="Checkpoint already exists"):
        dcp.save({name: torch.full((10,), 2)}, storage_writer=writer_of(path, overwrite=False))
    state = {name: torch.zeros(10, dtype=torch.int64)}
    dcp.load(state, storage_reader=reader_of(path))
    assert state[name].tolist() == [1] * 10


def another_job_is_faster(rank: int, path: str) -> None:
    """The files of all ranks go again, when a checkpoint has appeared that must not be replaced."""

    class Planner(dcp.DefaultSavePlanner):
        def finish_plan(self, new_plan: SavePlan) -> SavePlan:  # after the first check
            if rank == 0:
                dcp.save({"theirs": torch.ones(10)}, storage_writer=writer_of(path), no_dist=True)
            return super().finish_plan(new_plan)

    state = {f"of rank {rank}": torch.full((10,), 2)}
    with pytest.raises(CheckpointException, match="Checkpoint already exists"):
        dcp.save(state, storage_writer=writer_of(path, overwrite=False), planner=Planner())
    bucket, _, prefix = path.removeprefix("s3://").partition("/")
    assert len(keys_of(bucket, prefix)) == 2
    state = {"theirs": torch.zeros(10)}
    dcp.load(state, storage_reader=reader_of(path))
    assert state["theirs"].tolist() == [1] * 10


def without_collectives(rank: int, path: str) -> None:
    """Each rank commits on its own, twice."""
    for step in (1, 2):
        state = {f"of rank {rank}": torch.full((10,), step)}
        dcp.save(state, storage_writer=writer_of(path), use_collectives=False)
    state[f"of rank {rank}"].zero_()
    dcp.load(state, storage_reader=reader_of(path))
    assert state[f"of rank {rank}"].tolist() == [2] * 10


def prefixes_for_the_group(rank: int, path: str) -> None:
    """Save with strategies that get no number of ranks."""
    strategies = {"binary": BinaryPrefixStrategy(min_prefix_length=1), "hex": HexPrefixStrategy(epoch_num=4)}
    for name, strategy in strategies.items():
        state = {f"of rank {rank}": torch.full((10,), rank)}
        dcp.save(state, storage_writer=writer_of(f"{path}/{name}", prefix_strategy=strategy))


def save_for_ever(rank: int, path: str, first: int, reports: Connection) -> None:
    """Save step after step to the same path, and report the complete ones. Ends by being killed."""
    warnings.simplefilter("ignore")
    for step in itertools.count(first):
        state = {f"of rank {rank}": torch.full((1000, 500), step), "step": step, "mixed": mixed_state(step)["small"]}
        dcp.save(state, storage_writer=writer_of(path, thread_count=2))
        if rank == 0:
            reports.send(step)
