"""What ranks do in the tests of the manager."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist

from s3torchconnector import S3CheckpointManager


def _state(rank: int, step: int) -> dict[str, Any]:
    return {f"of rank {rank}": torch.full((1000,), float(step)), "shared": torch.full((10,), float(step)), "step": step}


def save_and_load(rank: int, uri: str) -> None:
    manager = S3CheckpointManager(uri, "us-east-1", keep_last=2)
    assert manager.latest() is None
    manager.save(1, _state(rank, 1))
    manager.save(2, _state(rank, 2))
    state = _state(rank, 3)
    future = manager.save_async(3, state)
    state["shared"] += 1
    future.result(timeout=60)
    dist.barrier()  # rank 0 has committed
    assert manager.latest() == 3
    loaded = manager.load(state_dict=_state(rank, 0))
    assert torch.equal(loaded[f"of rank {rank}"], torch.full((1000,), 3.0))
    assert (loaded["shared"].unique().item(), loaded["step"]) == (3, 3)
    with pytest.raises(FileNotFoundError):  # in every rank
        manager.load(1, state_dict=_state(rank, 0))
