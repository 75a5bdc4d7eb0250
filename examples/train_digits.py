"""Train a small CNN on images in S3, save checkpoints to S3, be killed in the middle of an epoch, and resume there.

Run it with ``make demo``. It needs no AWS account: it starts a real S3 server on this machine (``S3Server``), and
everything below talks to that as it would to AWS. On AWS, leave out the server and name your own bucket and region;
credentials are found as the AWS command line finds them.

The job runs in a separate process. After it has saved a checkpoint in the middle of an epoch, it is killed by SIGKILL,
like a job on a node that fails. A second process finds the newest checkpoint in S3 and goes on with the images that the
first one has not had. Both record which images they trained on, so that the demo can check it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from s3torchconnector import (
    S3Checkpoint,
    S3Client,
    S3DataLoader,
    S3IterableDataset,
    S3Manifest,
    S3Reader,
    S3StreamingDataset,
    S3Writer,
)
from s3torchconnector.testing import S3Server

REGION = "us-east-1"
BUCKET = "digits"
TRAIN = f"s3://{BUCKET}/train/"
MANIFEST = f"s3://{BUCKET}/manifests/train"
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
    seen: Path  # where this process writes down what it trains on
    killed_in: int | None  # the epoch in which this process is killed, counted from 1


class Sample(NamedTuple):
    """An image of 1 x 8 x 8, its label and its key; a DataLoader makes a batch of each."""

    image: torch.Tensor
    label: int
    key: str


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


def to_sample(reader: S3Reader) -> Sample:
    """The transform of both datasets.

    It runs in DataLoader's workers. The reader is a file, and its object is being fetched before it is asked for.
    """
    label = int(reader.key.split("/")[-2])
    pixels = np.asarray(Image.open(reader), dtype=np.float32) / 255
    return Sample(torch.from_numpy(pixels)[None], label, reader.key)


def training_loader(workers: int) -> S3DataLoader:
    """All images in a new order each epoch; the loader's state says where training is, and is a few numbers.

    The prefix is listed by the first process only: the second one loads the list, and so has the same images.
    """
    manifest = S3Manifest.shared(TRAIN, at=MANIFEST, region=REGION)
    dataset = S3StreamingDataset(manifest, transform=to_sample, batch_size=BATCH, seed=0)
    return S3DataLoader(dataset, num_workers=workers, persistent_workers=workers > 0)


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
        for images, labels, _ in loader:
            right += int((model(images).argmax(1) == labels).sum())
            seen += len(labels)
    model.train()
    return right / seen


# -- checkpoints ------------------------------------------------------------------------------------------------------


def save_checkpoint(model: nn.Module, optimizer: torch.optim.Optimizer, loader: S3DataLoader) -> str:
    """Store the state under a name of its own. It appears whole, when the ``with`` block ends, or not at all."""
    place = loader.state_dict()
    uri = f"{CHECKPOINTS}epoch-{place['epoch'] + 1:03}-image-{place['position']:05}.pt"
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "loader": place}
    with S3Checkpoint(REGION).writer(uri) as writer:
        torch.save(state, writer)
    return uri


def newest_checkpoint() -> str | None:
    """The URI of the last checkpoint, None before the first. Names sort as epochs do."""
    with S3Client(REGION) as client:
        pages = client.list_objects(BUCKET, "checkpoints/")
        keys = [info.key for page in pages for info in page.object_info]
    return f"s3://{BUCKET}/{max(keys)}" if keys else None


def load_checkpoint(uri: str, model: nn.Module, optimizer: torch.optim.Optimizer, loader: S3DataLoader) -> None:
    """Restore the state, also of the loader: its next pass goes on after the images that were trained on."""
    with S3Checkpoint(REGION).reader(uri) as reader:
        state = torch.load(reader, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    loader.load_state_dict(state["loader"])


# -- the job ----------------------------------------------------------------------------------------------------------


def train(job: Job) -> None:
    """The training process: starts from the newest checkpoint."""
    torch.set_num_threads(1)  # faster for a model this small, and the workers need the other cores
    torch.manual_seed(0)
    model = make_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    training, held_out = training_loader(job.workers), held_out_loader(job.workers)
    uri = newest_checkpoint()
    if uri:
        load_checkpoint(uri, model, optimizer, training)
    say(f"resuming from {uri}" if uri else "no checkpoint in S3 yet: starting from the beginning")

    for epoch in range(training.dataset.epoch + 1, job.epochs + 1):
        start = time.perf_counter()
        images = train_epoch(epoch, job, model, optimizer, training)
        seconds = time.perf_counter() - start
        accuracy = accuracy_of(model, held_out)
        start = time.perf_counter()
        uri = save_checkpoint(model, optimizer, training)
        saved_in = time.perf_counter() - start
        say(f"epoch {epoch}/{job.epochs}: accuracy {accuracy:.1%} on held-out images, saved {uri}")
        save_metrics(epoch, images=images, seconds=seconds, accuracy=accuracy, checkpoint_seconds=saved_in)


def train_epoch(epoch: int, job: Job, model: nn.Module, optimizer: torch.optim.Optimizer, loader: S3DataLoader) -> int:
    """One pass over the training images, or what is left of it; return over how many. Saves in the middle, too."""
    images_of_epoch, count = len(loader.dataset), 0
    had = loader.state_dict()["position"] % images_of_epoch
    title = f"epoch {epoch}/{job.epochs}"
    with (
        tqdm(desc=title, total=images_of_epoch, initial=had, leave=False, unit="image", disable=None) as bar,
        open(job.seen, "a") as seen,
    ):
        for images, labels, keys in loader:
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen.writelines(f"{epoch} {key}\n" for key in keys)
            count += len(images)
            bar.update(len(images))
            if had < images_of_epoch / 2 <= had + count < images_of_epoch / 2 + BATCH:
                uri = save_checkpoint(model, optimizer, loader)
                bar.clear()
                say(f"{title}: saved {uri} in the middle")
                if epoch == job.killed_in:
                    bar.refresh()
                    seen.flush()
                    os.kill(os.getpid(), signal.SIGKILL)  # no clean-up, as when a node fails
    return count


def save_metrics(epoch: int, **metrics: float) -> None:
    with S3Checkpoint(REGION).writer(f"{METRICS}epoch-{epoch:03}.json") as writer:
        writer.write(json.dumps(metrics).encode())


# -- the demo ---------------------------------------------------------------------------------------------------------


def run_job(job: Job) -> int:
    """Run ``train`` in a separate process. Return 0 if it succeeded, or minus the signal if it was killed."""
    command = [sys.executable, __file__, f"--job={job.seen}", f"--epochs={job.epochs}", f"--workers={job.workers}"]
    if job.killed_in is not None:
        command.append(f"--killed-in={job.killed_in}")
    return subprocess.run(command, check=False).returncode


def train_through_a_crash(epochs: int, workers: int) -> None:
    """Run the job until it is killed half-way, then run it again, to the end, and compare what the two trained on.

    Raises:
        RuntimeError: a process ended otherwise than planned, or an image came twice or not at all.
    """
    killed_in = epochs // 2 + 1
    with TemporaryDirectory() as folder:
        first, second = Path(folder) / "first", Path(folder) / "second"
        if run_job(Job(epochs, workers, first, killed_in)) != -signal.SIGKILL:
            raise RuntimeError("the first training process should have been killed")
        if sys.stderr.isatty():
            print(file=sys.stderr)  # below its progress bar
        say(f"killed by SIGKILL in the middle of epoch {killed_in}; a new process takes over")
        if run_job(Job(epochs, workers, second, None)) != 0:
            raise RuntimeError("the second training process failed")
        images = len(S3Manifest.load(MANIFEST, region=REGION))
        compare(killed_in, images, first.read_text().splitlines(), second.read_text().splitlines())


def compare(epoch: int, images: int, first: list[str], second: list[str]) -> None:
    """Say what the two processes trained on in the epoch in which the first one was killed."""
    before, after = (Counter(line for line in lines if line.startswith(f"{epoch} ")) for lines in (first, second))
    both = before + after
    again = both.total() - len(both)
    missing = images - len(both)
    say(
        f"epoch {epoch}: {before.total():,} images before the kill and {after.total():,} after it; "
        f"read again: {again}, left out: {missing}"
    )
    if again or missing:
        raise RuntimeError("every image should have come exactly once")


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
    images, mean = sum(epoch["images"] for epoch in metrics), sum(sizes) / len(sizes)
    table.add_row("objects/s, read while training", f"{images / seconds:,.0f}")
    table.add_row(f"MB/s (a PNG is {mean:.0f} bytes)", f"{images * mean / seconds / 1e6:.3f}")
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
    parser.add_argument(
        "--job",
        type=Path,
        metavar="FILE",
        help="only train, at AWS_ENDPOINT_URL_S3, and write the keys here",
    )
    parser.add_argument("--killed-in", type=int, metavar="EPOCH", help="with --job: die in the middle of that epoch")
    options = parser.parse_args()
    if options.epochs < 1 or options.workers < 0:
        parser.error("--epochs must be at least 1, --workers at least 0")
    return options


if __name__ == "__main__":
    given = parse_options()
    if given.job:
        train(Job(given.epochs, given.workers, given.job, given.killed_in))
    else:
        sys.exit(demo(given.epochs, given.workers))
