"""Two ranks train one model (DDP) on objects in S3 and save a checkpoint to S3; one process loads it.

Run it with ``python examples/ddp.py``: it starts a local S3 server and, by torchrun, itself on two gloo ranks.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from s3torchconnector import S3Checkpoint, S3IterableDataset, S3Reader
from s3torchconnector.dcp import S3StorageReader, S3StorageWriter
from s3torchconnector.testing import S3Server

REGION = "us-east-1"
SAMPLES = "s3://training/samples/"
CHECKPOINT = "s3://training/checkpoint"


def upload_samples(count: int = 64) -> None:
    checkpoint = S3Checkpoint(REGION)
    for number in range(count):
        with checkpoint.writer(f"{SAMPLES}{number:03}.pt") as writer:
            torch.save(torch.rand(16), writer)


def load_sample(reader: S3Reader) -> torch.Tensor:
    return torch.load(reader)


def train() -> None:
    model = DistributedDataParallel(nn.Linear(16, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    # Sharding gives each rank its own half of the samples.
    samples = S3IterableDataset.from_prefix(SAMPLES, region=REGION, transform=load_sample, enable_sharding=True)
    seen = 0
    for batch in DataLoader(samples, batch_size=8):
        loss = nn.functional.mse_loss(model(batch), batch.mean(1, keepdim=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen += len(batch)
    # All ranks have the same state. Each one stores a share of it.
    dcp.save({"model": model.module.state_dict()}, storage_writer=S3StorageWriter(REGION, CHECKPOINT))
    print(f"rank {dist.get_rank()} saw {seen} samples")


def main() -> None:
    dist.init_process_group("gloo")
    train()
    # The model is gone, and gloo's threads release the last tensors while this waits. Otherwise PyTorch 2.13 may hang
    # here: if a model outlives its group, its end waits for threads that wait for the interpreter lock.
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    if "RANK" in os.environ:
        main()
    else:
        with S3Server() as server, server.exported():
            server.make_bucket("training")
            upload_samples()
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
            subprocess.run([*torchrun, __file__], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            # PyTorch warns that there is only one process, which is intended.
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            state = {"model": nn.Linear(16, 1).state_dict()}
            dcp.load(state, storage_reader=S3StorageReader(REGION, CHECKPOINT), no_dist=True)
            print("loaded by one process:", {name: tuple(value.shape) for name, value in state["model"].items()})
