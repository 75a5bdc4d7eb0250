"""Train on WebDataset's tar shards where they are: shuffled over all of them, stopped, and resumed with other batches.

Run it with ``python examples/webdataset_in_place.py``. It needs no AWS account: it starts a local S3 server, and makes
shards as ``webdataset.TarWriter`` would. Nothing is converted, and no shard is downloaded: a sample is one request.
"""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import torch

from s3torchconnector import S3Checkpoint, S3DataLoader, S3Manifest, S3StreamingDataset
from s3torchconnector.testing import S3Server

REGION = "us-east-1"
SHARDS = "s3://training/shards/"
MANIFEST = "s3://training/manifests/shards"
STATE = "s3://training/state.pt"


def write_shards(shards: int = 4, samples: int = 16) -> None:
    checkpoint = S3Checkpoint(REGION)
    for shard in range(shards):
        with (
            checkpoint.writer(f"{SHARDS}train-{shard:03}.tar") as writer,
            tarfile.open(fileobj=writer, mode="w|") as tar,
        ):
            for number in range(shard * samples, (shard + 1) * samples):
                add(tar, f"{number:06}.pt", tensor_bytes(torch.full((8,), float(number))))
                add(tar, f"{number:06}.json", json.dumps({"number": number}).encode())


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    memory = io.BytesIO()
    torch.save(tensor, memory)
    return memory.getvalue()


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def decode(sample: dict[str, Any]) -> tuple[torch.Tensor, int]:
    """The dict is WebDataset's: its decoders could stand here as well."""
    return torch.load(io.BytesIO(sample["pt"])), json.loads(sample["json"])["number"]


def make_loader(batch_size: int) -> S3DataLoader:
    # The first process reads each shard once, to find its samples, and stores what it found. Later ones load that.
    manifest = S3Manifest.shared(SHARDS, at=MANIFEST, region=REGION, make=S3Manifest.from_tar)
    dataset = S3StreamingDataset(manifest, transform=decode, batch_size=batch_size, seed=7)
    return S3DataLoader(dataset, num_workers=2)


def main() -> None:
    write_shards()
    loader, seen = make_loader(batch_size=8), []
    print(f"{len(loader.dataset.manifest)} samples, the first step sees {loader.dataset.keys_of(0)[:2]} ...")
    batches = iter(loader)
    for _ in range(3):
        tensors, numbers = next(batches)
        assert torch.equal(tensors[:, 0], numbers.float())
        seen += numbers.tolist()
    with S3Checkpoint(REGION).writer(STATE) as writer:
        torch.save(loader.state_dict(), writer)
    print(f"stopped after {len(seen)} samples of {len({number // 16 for number in seen})} shards")

    loader = make_loader(batch_size=5)  # another job, with other batches
    loader.load_state_dict(torch.load(S3Checkpoint(REGION).reader(STATE), weights_only=True))
    for _, numbers in loader:
        seen += numbers.tolist()
    assert sorted(seen) == list(range(64)), "each sample comes once"
    print(f"resumed: {len(seen)} samples, each seen once")


if __name__ == "__main__":
    with S3Server() as server, server.exported():
        server.make_bucket("training")
        main()
