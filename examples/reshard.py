"""Save a sharded tensor from two ranks, and load it into one process: DCP finds the pieces.

Run it with ``python examples/reshard.py``: it starts a local S3 server and two gloo ranks.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from s3torchconnector.dcp import S3StorageReader, S3StorageWriter
from s3torchconnector.testing import S3Server

REGION = "us-east-1"
CHECKPOINT = "s3://checkpoints/sharded"
RANKS = 2


def weights() -> torch.Tensor:
    return torch.arange(1_000_000, dtype=torch.float32).reshape(1000, 1000)


def save(rank: int, store: str) -> None:
    """One rank, which has half of the columns, and saves them."""
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=RANKS)
    mesh = init_device_mesh("cpu", (RANKS,))
    shard = distribute_tensor(weights(), mesh, [Shard(1)])
    dcp.save({"weights": shard}, storage_writer=S3StorageWriter(REGION, CHECKPOINT))
    print(f"rank {rank} saved its {tuple(shard.to_local().shape)} of {tuple(shard.shape)}")
    dist.barrier()  # PyTorch 2.13 may hang or abort at the end while gloo's threads have a tensor, see ddp.py
    dist.destroy_process_group()


if __name__ == "__main__":
    # PyTorch warns that there is only one process, which is intended.
    warnings.filterwarnings("ignore", "torch.distributed is disabled")
    with S3Server() as server, server.exported(), tempfile.TemporaryDirectory() as folder:
        server.make_bucket("checkpoints")
        torch.multiprocessing.spawn(save, (f"file://{Path(folder) / 'store'}",), RANKS)
        state = {"weights": torch.zeros(1000, 1000)}
        dcp.load(state, storage_reader=S3StorageReader(REGION, CHECKPOINT), no_dist=True)
        print("one process loaded all of it:", torch.equal(state["weights"], weights()))
