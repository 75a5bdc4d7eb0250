"""Programs as users of 1.5.0 write them. ``python programs.py NAME BUCKET`` prints what one of them sees, as JSON.

This file runs in the environment of 1.5.0, too: it imports nothing of the tests, and nothing that 1.5.0 lacks.
"""

from __future__ import annotations

import io
import json
import sys
import warnings
from typing import Any

import torch

from s3torchconnector import S3ClientConfig
from s3torchconnector._s3client import S3Client

_REGION = "us-east-1"
_CONFIG = S3ClientConfig(force_path_style=True)


def _client() -> S3Client:
    return S3Client(_REGION, s3client_config=_CONFIG)


def _store(bucket: str, *keys: str) -> list[str]:
    for key in keys:
        with _client().put_object(bucket, key) as writer:
            writer.write(key.encode())
    return [f"s3://{bucket}/{key}" for key in keys]


def write_through_the_client(bucket: str) -> Any:
    """Save a tensor and a few lines through writers of the client."""
    client = _client()
    with client.put_object(bucket, "weights.pt") as writer:
        torch.save({"w": torch.arange(5)}, writer)
        ended_at = writer.tell()
    lines = client.put_object(bucket, "lines.txt", storage_class="STANDARD")
    seen = [type(lines).__name__, lines.closed, lines.writable(), lines.readable(), lines.write(b"one\n"), lines.tell()]
    lines.close()
    loaded = torch.load(io.BytesIO(client.get_object(bucket, "weights.pt").read()))
    text = client.get_object(bucket, "lines.txt").read().decode()
    return [
        *seen, lines.closed, writer.closed, loaded["w"].tolist(), text,
        ended_at == client.head_object(bucket, "weights.pt").size,
    ]  # fmt: skip


PROGRAMS = {program.__name__: program for program in (write_through_the_client,)}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(PROGRAMS[sys.argv[1]](sys.argv[2])))
