"""Two ranks train on shuffled objects and are killed in the middle of an epoch; one process does the rest of it.

Run it with ``python examples/elastic_resume.py``. It starts a local S3 server and, by torchrun, itself on two gloo
ranks. The order of the samples does not depend on the number of ranks, and the state of the loader is the same on all
of them, so any job can go on with what another one has saved.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter

import torch
import torch.distributed as dist
from torch import nn

from s3torchconnector import S3Checkpoint, S3Client, S3DataLoader, S3Manifest, S3Reader, S3StreamingDataset
from s3torchconnector.testing import S3Server

REGION = "us-east-1"
SAMPLES = "s3://training/samples/"
MANIFEST = "s3://training/manifests/samples"
CHECKPOINT = "s3://training/checkpoint.pt"
SEEN = "s3://training/seen/"
COUNT = 211


def to_sample(reader: S3Reader) -> int:
    return int(reader.read())


def upload_samples() -> None:
    client = S3Client(REGION)
    for number in range(COUNT):
        with client.put_object("training", f"samples/{number:04}") as writer:
            writer.write(str(number).encode())


def make_loader(batch_size: int) -> S3DataLoader:
    # The first job lists the objects and stores the list; all others load it.
    manifest = S3Manifest.shared(SAMPLES, at=MANIFEST, region=REGION)
    dataset = S3StreamingDataset(manifest, transform=to_sample, batch_size=batch_size, seed=7)
    return S3DataLoader(dataset, num_workers=2)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, numbers: torch.Tensor) -> None:
    values = numbers[:, None] / COUNT
    optimizer.zero_grad()
    nn.functional.mse_loss(model(values), values.sin()).backward()
    optimizer.step()


def note(name: str, numbers: list[int]) -> None:
    with S3Checkpoint(REGION).writer(f"{SEEN}{name}") as writer:
        writer.write(" ".join(map(str, numbers)).encode())


def train_until_killed(steps: int) -> None:
    """A rank of the first job."""
    dist.init_process_group("gloo")
    model = nn.parallel.DistributedDataParallel(nn.Linear(1, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader, seen = make_loader(batch_size=8), []
    for number, batch in enumerate(loader, 1):
        step(model, optimizer, batch)
        seen += batch.tolist()
        if number == steps:
            break
    note(f"rank-{dist.get_rank()}", seen)
    if dist.get_rank() == 0:
        state = {"model": model.module.state_dict(), "optimizer": optimizer.state_dict(), "loader": loader.state_dict()}
        with S3Checkpoint(REGION).writer(CHECKPOINT) as writer:
            torch.save(state, writer)
        print(f"2 ranks, {steps} steps of 8 samples each: saved", flush=True)
    dist.barrier()
    os.kill(os.getpid(), signal.SIGKILL)


def go_on() -> None:
    """The second job: one process, with batches of another size."""
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader, seen = make_loader(batch_size=13), []
    with S3Checkpoint(REGION).reader(CHECKPOINT) as reader:
        state = torch.load(reader, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    loader.load_state_dict(state["loader"])
    for batch in loader:
        step(model, optimizer, batch)
        seen += batch.tolist()
    note("second-job", seen)
    print(f"1 process, {len(seen)} samples in batches of 13: the epoch has ended")


def main() -> None:
    with S3Server() as server, server.exported():
        server.make_bucket("training")
        upload_samples()
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        killed = subprocess.run([*torchrun, __file__], env=environment, stderr=subprocess.DEVNULL, check=False)
        print("the job was killed" if killed.returncode else "the job should have been killed")
        go_on()
        with S3Client(REGION) as client:
            keys = [info.key for page in client.list_objects("training", "seen/") for info in page.object_info]
            count = Counter(int(n) for key in keys for n in client.get_object("training", key).read().split())
        print(f"{COUNT} samples; read again: {count.total() - len(count)}, left out: {COUNT - len(count)}")


if __name__ == "__main__":
    if "RANK" in os.environ:
        train_until_killed(steps=5)
    else:
        main()
