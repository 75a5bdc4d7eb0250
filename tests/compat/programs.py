"""Programs as users of 1.5.0 write them. ``python programs.py NAME BUCKET`` prints what one of them sees, as JSON.

This file runs in the environment of 1.5.0, too: it imports nothing of the tests, and nothing that 1.5.0 lacks.
"""

from __future__ import annotations

import io
import json
import sys
import warnings
from functools import partial
from typing import Any

import torch

import s3torchconnector.s3iterable_dataset as iterable_names
import s3torchconnector.s3map_dataset as map_names
from s3torchconnector import S3ClientConfig, S3IterableDataset, S3MapDataset
from s3torchconnector._s3client import S3Client
from s3torchconnector._s3dataset_common import parse_s3_uri

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


class NewestFirst(S3MapDataset):
    """Objects in reversed order, found by the package's own helpers, in a constructor of its own."""

    def __init__(self, uri: str, suffix: str) -> None:
        super().__init__(_REGION, partial(self._matching, uri, suffix), transform=_text, s3client_config=_CONFIG)

    @staticmethod
    def _matching(uri: str, suffix: str, client: S3Client) -> Any:
        found = map_names.get_objects_from_prefix(uri, client)
        return reversed([item for item in found if item.key.endswith(suffix)])


def _text(reader: Any) -> str:
    return str(reader.key) + "=" + reader.read().decode()


def use_the_helpers_of_the_datasets(bucket: str) -> Any:
    """List and name objects by the functions that the modules of the datasets import."""
    uris = _store(bucket, "a/1.txt", "a/2.txt", "a/3.bin")
    client = _client()
    named = iterable_names.get_objects_from_uris(uris[:2], client)
    sharded = S3IterableDataset(
        _REGION, partial(iterable_names.get_objects_from_prefix, f"s3://{bucket}/a/"), transform=_text,
        s3client_config=_CONFIG, enable_sharding=True,
    )  # fmt: skip
    plain = S3MapDataset(
        _REGION,
        partial(map_names.get_objects_from_uris, uris[1]),
        transform=map_names.identity,
        s3client_config=_CONFIG,
    )
    newest = NewestFirst(f"s3://{bucket}/a/", ".txt")
    return [
        [item.key for item in named],
        list(sharded),
        [newest[i] for i in range(len(newest))],
        plain[0].read().decode(),
        parse_s3_uri("s3://bucket/a/b"),
        parse_s3_uri("s3://bucket"),
    ]


_PROGRAMS = (write_through_the_client, use_the_helpers_of_the_datasets)
PROGRAMS = {program.__name__: program for program in _PROGRAMS}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(PROGRAMS[sys.argv[1]](sys.argv[2])))
