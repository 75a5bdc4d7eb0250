"""Go on training while the checkpoint is stored in S3: the loop only waits for the copy of the state in memory.

Run it with ``python examples/async_checkpoint.py``: it starts a local S3 server.
"""

from __future__ import annotations

import time
import warnings
from concurrent.futures import Future

import torch
import torch.distributed.checkpoint as dcp
from torch import nn

from s3torchconnector.dcp import S3StorageReader, S3StorageWriter
from s3torchconnector.testing import S3Server

REGION = "us-east-1"
SAVE_EVERY = 10


def train(steps: int) -> None:
    model = nn.Sequential(nn.Linear(256, 4096), nn.ReLU(), nn.Linear(4096, 256))
    optimizer = torch.optim.AdamW(model.parameters())
    saving: Future[object] | None = None
    for step in range(1, steps + 1):
        numbers = torch.rand(16, 256)
        loss = nn.functional.mse_loss(model(numbers), numbers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % SAVE_EVERY == 0:
            if saving is not None:
                saving.result()  # one save at a time; raises the error of the last one
            begin = time.perf_counter()
            # Each save has a path of its own, and appears there when it is complete.
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            saving = dcp.async_save(state, storage_writer=S3StorageWriter(REGION, f"s3://checkpoints/step-{step}"))
            print(f"step {step}: loss {loss.item():.4f}, held up for {time.perf_counter() - begin:.3f} s")
    if saving is not None:
        saving.result()


if __name__ == "__main__":
    # PyTorch warns that there is only one process, which is intended.
    warnings.filterwarnings("ignore", "torch.distributed is disabled")
    with S3Server() as server, server.exported():
        server.make_bucket("checkpoints")
        train(30)
        state = {"step": 0}
        dcp.load(state, storage_reader=S3StorageReader(REGION, "s3://checkpoints/step-30"))  # loads only this part
        print("the last checkpoint is of step", state["step"])
