"""Train a small CNN on images in S3, save a checkpoint to S3 every epoch, be killed, and resume from S3.

Run it with ``make demo``. It needs no AWS account: it starts a real S3 server on this machine (``S3Server``), and
everything below talks to that as it would to AWS. On AWS, leave out the server and name your own bucket and region;
credentials are found as the AWS command line finds them.

The job runs in a process of its own, which is killed by SIGKILL, as a node that fails would be, in the middle of an
epoch. A second process finds the newest checkpoint in S3 and goes on from there.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from s3torchconnector import S3Checkpoint, S3Client, S3IterableDataset, S3MapDataset, S3Reader, S3Writer
from s3torchconnector.testing import S3Server

REGION = "us-east-1"
BUCKET = "digits"
TRAIN = f"s3://{BUCKET}/train/"
HELD_OUT = f"s3://{BUCKET}/held-out/"
CHECKPOINTS = f"s3://{BUCKET}/checkpoints/"
METRICS = f"s3://{BUCKET}/metrics/"

REQUIRED_ACCURACY = 0.95
BATCH = 32


@dataclass(frozen=True)
class Job:
    """The arguments of the training process. The endpoint and the keys of S3 are in the environment."""

    epochs: int
    workers: int
    killed_in: int | None  # the epoch in which this process is killed


# -- the data: one PNG an image, with its label in the key ------------------------------------------------------------


def upload_digits() -> int:
    """Store scikit-learn's handwritten digits, each as an object of its own; return how many."""
    from sklearn.datasets import load_digits  # here, because the job starts faster without it

    digits = load_digits()
    client = S3Client(REGION)

    def upload(i: int) -> None:
        part = "held-out" if i % 5 == 0 else "train"
        key = f"{part}/{digits.target[i]}/{i:04}.png"
        image = Image.fromarray((digits.images[i] * 15).astype(np.uint8))  # 0..16 to 0..240
        # S3Writer is a file: whatever can save to one can save to S3.
        with S3Writer(client.put_object(BUCKET, key)) as writer:
            image.save(writer, format="PNG")

    count = len(digits.images)
    # Storing a small object is mostly waiting for the response, so many threads upload in parallel.
    with client, ThreadPoolExecutor(32) as threads:
        for _ in tqdm(threads.map(upload, range(count)), "uploading", count, False, unit="image", disable=None):
            pass
    return count


def to_sample(reader: S3Reader) -> tuple[torch.Tensor, int]:
    """The transform of both datasets: an object becomes a tensor of 1 x 8 x 8 and a label.

    It runs in DataLoader's workers. The reader is a file, and its object is being fetched before it is asked for.
    """
    label = int(reader.key.split("/")[-2])
    pixels = np.asarray(Image.open(reader), dtype=np.float32) / 255
    return torch.from_numpy(pixels)[None], label


def training_loader(workers: int, shuffle: torch.Generator) -> DataLoader:
    """Random access in a new order each epoch: the map dataset fetches the objects of a batch concurrently."""
    dataset = S3MapDataset.from_prefix(TRAIN, region=REGION, transform=to_sample)
    return DataLoader(
        dataset, BATCH, shuffle=True, num_workers=workers, generator=shuffle, persistent_workers=workers > 0
    )


def held_out_loader(workers: int) -> DataLoader:
    """Every object once, in order: the iterable dataset. Sharding gives each image to exactly one worker."""
    dataset = S3IterableDataset.from_prefix(HELD_OUT, region=REGION, transform=to_sample, enable_sharding=True)
    return DataLoader(dataset, batch_size=128, num_workers=workers, persistent_workers=workers > 0)


# -- the model --------------------------------------------------------------------------------------------------------


def make_model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(64 * 4 * 4, 128), nn.ReLU(),
        nn.Linear(128, 10),
    )  # fmt: skip


def accuracy_of(model: nn.Module, loader: DataLoader) -> float:
    right = seen = 0
    model.eval()
    with torch.inference_mode():
        for images, labels in loader:
            right += int((model(images).argmax(1) == labels).sum())
            seen += len(labels)
    model.train()
    return right / seen


# -- checkpoints ------------------------------------------------------------------------------------------------------


def save_checkpoint(epoch: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> str:
    """Store the state under a name of its own. It appears whole, when the ``with`` block ends, or not at all."""
    uri = f"{CHECKPOINTS}epoch-{epoch:03}.pt"
    state = {"epoch": epoch, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    with S3Checkpoint(REGION).writer(uri) as writer:
        torch.save(state, writer)
    return uri


def newest_checkpoint() -> str | None:
    """The URI of the last checkpoint, None before the first. Names sort as epochs do."""
    with S3Client(REGION) as client:
        pages = client.list_objects(BUCKET, "checkpoints/")
        keys = [info.key for page in pages for info in page.object_info]
    return f"s3://{BUCKET}/{max(keys)}" if keys else None


def load_checkpoint(uri: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Restore the state and return the epoch it was saved after."""
    with S3Checkpoint(REGION).reader(uri) as reader:
        state = torch.load(reader, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["epoch"])


# -- the job ----------------------------------------------------------------------------------------------------------


def train(job: Job) -> None:
    """The training process: starts from the newest checkpoint."""
    torch.set_num_threads(1)  # faster for a model this small, and the workers need the other cores
    torch.manual_seed(0)
    model = make_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    uri = newest_checkpoint()
    done = load_checkpoint(uri, model, optimizer) if uri else 0
    say(f"resuming from {uri}" if uri else "no checkpoint in S3 yet: starting from the beginning")

    shuffle = torch.Generator()
    training, held_out = training_loader(job.workers, shuffle), held_out_loader(job.workers)
    for epoch in range(done + 1, job.epochs + 1):
        shuffle.manual_seed(epoch)  # the same order, whether or not the job was resumed
        seconds = train_epoch(epoch, job, model, optimizer, training)
        accuracy = accuracy_of(model, held_out)
        start = time.perf_counter()
        uri = save_checkpoint(epoch, model, optimizer)
        saved_in = time.perf_counter() - start
        say(f"epoch {epoch}/{job.epochs}: accuracy {accuracy:.1%} on held-out images, saved {uri}")
        save_metrics(epoch, seconds=seconds, accuracy=accuracy, checkpoint_seconds=saved_in)


def train_epoch(epoch: int, job: Job, model: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader) -> float:
    """One pass over the training images; return the seconds it took."""
    start = time.perf_counter()
    images_of_epoch = len(loader.dataset)  # type: ignore[arg-type]
    with tqdm(
        desc=f"epoch {epoch}/{job.epochs}", total=images_of_epoch, leave=False, unit="image", disable=None
    ) as bar:
        for step, (images, labels) in enumerate(loader):
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            bar.update(len(images))
            if epoch == job.killed_in and step == len(loader) // 2:
                bar.refresh()
                os.kill(os.getpid(), signal.SIGKILL)  # no clean-up, as when a node fails
    return time.perf_counter() - start


def save_metrics(epoch: int, **metrics: float) -> None:
    with S3Checkpoint(REGION).writer(f"{METRICS}epoch-{epoch:03}.json") as writer:
        writer.write(json.dumps(metrics).encode())


# -- the demo ---------------------------------------------------------------------------------------------------------


def run_job(job: Job) -> int:
    """Run ``train`` in a process of its own. Return 0 if it succeeded, or minus the signal if it was killed."""
    command = [sys.executable, __file__, "--job", f"--epochs={job.epochs}", f"--workers={job.workers}"]
    if job.killed_in is not None:
        command.append(f"--killed-in={job.killed_in}")
    return subprocess.run(command, check=False).returncode


def train_through_a_crash(epochs: int, workers: int) -> None:
    """Run the job until it is killed half-way, then run it again, to the end.

    Raises:
        RuntimeError: a process ended otherwise than planned.
    """
    killed_in = epochs // 2 + 1
    if run_job(Job(epochs, workers, killed_in)) != -signal.SIGKILL:
        raise RuntimeError("the first training process should have been killed")
    if sys.stderr.isatty():
        print(file=sys.stderr)  # below its progress bar
    say(f"killed by SIGKILL in the middle of epoch {killed_in}; a new process takes over")
    if run_job(Job(epochs, workers, None)) != 0:
        raise RuntimeError("the second training process failed")


def report() -> float:
    """Show a table of what was measured and return the accuracy; all of it comes from S3."""
    # A transform is any function of a reader; json.load is one.
    metrics = list(S3IterableDataset.from_prefix(METRICS, region=REGION, transform=json.load))
    with S3Client(REGION) as client:
        sizes = [info.size for page in client.list_objects(BUCKET, "train/") for info in page.object_info]
    seconds = sum(epoch["seconds"] for epoch in metrics)
    saving = sum(epoch["checkpoint_seconds"] for epoch in metrics)
    passes = len(metrics)
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("objects/s, read while training", f"{passes * len(sizes) / seconds:,.0f}")
    table.add_row(f"MB/s (a PNG is {sum(sizes) / len(sizes):.0f} bytes)", f"{passes * sum(sizes) / seconds / 1e6:.3f}")
    table.add_row("accuracy on held-out images", f"{metrics[-1]['accuracy']:.1%}")
    table.add_row("seconds a checkpoint", f"{saving / passes:.3f}")
    Console().print(table)
    return float(metrics[-1]["accuracy"])


def say(line: str) -> None:
    """Print at once: several processes write to the same place."""
    print(line, flush=True)


def demo(epochs: int, workers: int) -> int:
    """Run everything with a server that is stopped at the end, and return the exit code."""
    with S3Server(region=REGION) as server, server.exported():
        say(f"S3 server: {server.endpoint}")
        server.make_bucket(BUCKET)
        start = time.perf_counter()
        count = upload_digits()
        say(f"uploaded {count:,} images in {time.perf_counter() - start:.1f} s")
        train_through_a_crash(epochs, workers)
        accuracy = report()
    if accuracy < REQUIRED_ACCURACY:
        say(f"the accuracy should be at least {REQUIRED_ACCURACY:.0%}: train for more epochs")
        return 1
    return 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train on images in S3, checkpoint to S3, be killed, and resume.")
    parser.add_argument("--epochs", type=int, default=4, help="passes over the training images (default: 4)")
    parser.add_argument(
        "--workers", type=int, default=min(2, os.cpu_count() or 1), help="DataLoader workers (default: 2)"
    )
    parser.add_argument("--job", action="store_true", help="only train, with the server that AWS_ENDPOINT_URL_S3 names")
    parser.add_argument("--killed-in", type=int, metavar="EPOCH", help="with --job: die in the middle of that epoch")
    options = parser.parse_args()
    if options.epochs < 1 or options.workers < 0:
        parser.error("--epochs must be at least 1, --workers at least 0")
    return options


if __name__ == "__main__":
    given = parse_options()
    if given.job:
        train(Job(given.epochs, given.workers, given.killed_in))
    else:
        sys.exit(demo(given.epochs, given.workers))
