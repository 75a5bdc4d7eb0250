"""Two ranks train a sharded model (FSDP2), save it to S3 with DCP, and resume from there.

Run it with ``python examples/fsdp2_dcp.py``: it starts a local S3 server and, by torchrun, itself on two gloo ranks. On
AWS, leave out the server, name your own bucket, and start it with torchrun.
"""

from __future__ import annotations

import os
import subprocess
import sys

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard

from s3torchconnector.dcp import HexPrefixStrategy, S3StorageReader, S3StorageWriter
from s3torchconnector.testing import S3Server

REGION = "us-east-1"
CHECKPOINT = "s3://checkpoints/fsdp2"


def make() -> tuple[nn.Module, torch.optim.Optimizer]:
    """A sharded model, each rank with its part of every parameter, and its optimizer."""
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 1))
    for layer in model:
        fully_shard(layer)
    fully_shard(model)
    return model, torch.optim.AdamW(model.parameters(), lr=0.01)


def loss_of(model: nn.Module, numbers: torch.Tensor) -> torch.Tensor:
    """How well the model knows the sum of 64 numbers."""
    return nn.functional.mse_loss(model(numbers), numbers.sum(1, keepdim=True))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model, torch.rand(32, 64)).backward()
        optimizer.step()


def train_and_resume() -> None:
    torch.manual_seed(dist.get_rank())
    model, optimizer = make()
    held_out = torch.rand(100, 64)
    train(model, optimizer, 50)
    before = loss_of(model, held_out).item()
    state = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True))
    dcp.save(state, storage_writer=S3StorageWriter(REGION, CHECKPOINT, prefix_strategy=HexPrefixStrategy()))

    model, optimizer = make()  # as in a job that starts again
    state = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True))
    dcp.load(state, storage_reader=S3StorageReader(REGION, CHECKPOINT))  # directly into the new shards
    set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    after = loss_of(model, held_out).item()
    train(model, optimizer, 10)
    if dist.get_rank() == 0:
        print(f"loss {before:.3f} when saved by {dist.get_world_size()} ranks, {after:.3f} when loaded")


def main() -> None:
    dist.init_process_group("gloo")
    train_and_resume()
    dist.barrier()  # PyTorch 2.13 may hang or abort at the end while gloo's threads have a tensor, see ddp.py
    dist.destroy_process_group()


if __name__ == "__main__":
    if "RANK" in os.environ:
        main()
    else:
        with S3Server() as server, server.exported():
            server.make_bucket("checkpoints")
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
            subprocess.run([*torchrun, __file__], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
