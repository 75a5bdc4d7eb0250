"""Ray Train on shuffled objects: two workers are killed in the middle of an epoch; one worker does the rest of it.

Run it with ``python examples/ray_train.py``. It starts a local S3 server and, for both jobs, one local Ray. An
``S3DataLoader`` learns its rank from the process group that Ray makes. Iterate it as it is: ``prepare_data_loader``
fetches a batch more than the loop has had, and the state would count it. Whatever Ray starts again goes on with the
latest checkpoint, on any number of workers.

It needs Ray: from the checkout, ``pip install '.[demo]' 'ray[train]'``. Ray starts about 20 processes for the two jobs,
which take a minute of processor time, and more on a busy machine. So ``make test-slow`` runs it, not ``make test``.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import secrets
import signal
import tempfile
from collections import Counter
from typing import Any

import ray
import torch
import torch.distributed as dist
from ray.train import RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchTrainer, prepare_model
from torch import nn

from s3torchconnector import S3Checkpoint, S3Client, S3DataLoader, S3Manifest, S3Reader, S3StreamingDataset
from s3torchconnector.testing import S3Server

REGION = "us-east-1"
CHECKPOINT = "s3://training/checkpoint.pt"
COUNT = 211

# For a Ray that serves one short program; a cluster needs none of this.
SMALL_RAY = {
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # otherwise Ray writes one to the home directory
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_worker_prestart": "0",  # each of these would start processes
    "RAY_prestart_worker_first_driver": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_worker_niceness": "0",  # otherwise its workers wait for all else that this machine does
}


def to_sample(reader: S3Reader) -> int:
    return int(reader.read())


def upload_samples() -> None:
    with S3Client(REGION) as client:
        for number in range(COUNT):
            with client.put_object("training", f"samples/{number:04}") as writer:
                writer.write(str(number).encode())


def load_latest() -> dict[str, Any]:
    try:
        with S3Checkpoint(REGION).reader(CHECKPOINT) as reader:
            return torch.load(reader, weights_only=True)
    except FileNotFoundError:  # the first start
        return {}


def train(config: dict[str, Any]) -> None:
    """What each worker runs."""
    manifest = S3Manifest.shared("s3://training/samples/", at="s3://training/manifest", region=REGION)
    dataset = S3StreamingDataset(manifest, transform=to_sample, batch_size=config["batch_size"], seed=7)
    loader = S3DataLoader(dataset, num_workers=2)
    net, seen = nn.Linear(1, 1), list[int]()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    stateful: dict[str, Any] = {"model": net, "optimizer": optimizer, "loader": loader}
    for name, state in load_latest().items():
        stateful[name].load_state_dict(state)
    model = prepare_model(net)
    for step, batch in enumerate(loader, 1):
        values = batch[:, None] / COUNT
        optimizer.zero_grad()
        nn.functional.mse_loss(model(values), values.sin()).backward()
        optimizer.step()
        seen += batch.tolist()
        if step % 5 == 0 and dist.get_rank() == 0:
            with S3Checkpoint(REGION).writer(CHECKPOINT) as writer:
                torch.save({name: each.state_dict() for name, each in stateful.items()}, writer)
        if step == config["killed_after"]:
            note(seen)
            dist.barrier()
            os.kill(os.getpid(), signal.SIGKILL)
    note(seen)


def note(seen: list[int]) -> None:
    with S3Checkpoint(REGION).writer(f"s3://training/seen/{dist.get_world_size()}/{dist.get_rank()}") as writer:
        writer.write(" ".join(map(str, seen)).encode())


def seen_by(workers: int) -> list[int]:
    with S3Client(REGION) as client:
        keys = [info.key for page in client.list_objects("training", f"seen/{workers}/") for info in page.object_info]
        return [int(number) for key in keys for number in client.get_object("training", key).read().split()]


def fit(workers: int, folder: str, **config: Any) -> None:
    TorchTrainer(
        train,
        train_loop_config=config,
        scaling_config=ScalingConfig(num_workers=workers),
        run_config=RunConfig(storage_path=folder),
    ).fit()


def main() -> None:
    os.environ |= SMALL_RAY
    with S3Server() as server, server.exported(), tempfile.TemporaryDirectory() as folder:
        server.make_bucket("training")
        upload_samples()
        options = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
        # Ray prints a page about each worker that is killed, to the standard output.
        with (
            contextlib.redirect_stdout(io.StringIO()),
            ray.init(num_cpus=2, object_store_memory=80 * 2**20, _temp_dir=folder, **options),
        ):
            try:
                fit(2, folder, batch_size=8, killed_after=5)
            except WorkerGroupError:
                fit(1, folder, batch_size=13, killed_after=None)
        print(f"2 workers, {len(seen_by(2))} samples in batches of 8: killed")
        print(f"1 worker, {len(seen_by(1))} samples in batches of 13: the epoch has ended")
        count = Counter(seen_by(2) + seen_by(1))
        print(f"{COUNT} samples; read again: {count.total() - len(count)}, left out: {COUNT - len(count)}")


if __name__ == "__main__":
    main()
