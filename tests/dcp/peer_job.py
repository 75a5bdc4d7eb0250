"""A program of its own, for 1.5.0 and for this package: save or load a state at a path.

``python peer_job.py save|load PATH ENDPOINT``; prints the version.
"""

from __future__ import annotations

import sys
import warnings

import torch
import torch.distributed.checkpoint as dcp

import s3torchconnector
from s3torchconnector import S3ClientConfig
from s3torchconnector.dcp import S3StorageReader, S3StorageWriter


def state() -> dict[str, object]:
    return {
        "large": torch.arange(3_000_000).reshape(1000, 3000),
        "small": {str(number): torch.full((number + 1, 3), number, dtype=torch.bfloat16) for number in range(20)},
        "step": 7,
    }


def main(action: str, path: str) -> None:
    config = S3ClientConfig(force_path_style=True)
    print(s3torchconnector.__version__)
    if action == "save":
        dcp.save(state(), storage_writer=S3StorageWriter("us-east-1", path, s3client_config=config, thread_count=2))
        return
    found = {
        "large": torch.zeros(1000, 3000, dtype=torch.int64),
        "small": {str(number): torch.zeros(number + 1, 3, dtype=torch.bfloat16) for number in range(20)},
        "step": 0,
    }
    dcp.load(found, storage_reader=S3StorageReader("us-east-1", path, s3client_config=config))
    expected = state()
    assert torch.equal(found["large"], expected["large"])
    assert all(torch.equal(found["small"][name], tensor) for name, tensor in expected["small"].items())
    assert found["step"] == 7


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(*sys.argv[1:])
