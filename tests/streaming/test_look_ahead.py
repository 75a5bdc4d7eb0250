"""Objects are fetched ahead across batches: at the border of two, as many are in flight as anywhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from s3torchconnector import S3Reader
from s3torchconnector._datasets._build import build
from s3torchconnector._datasets._rows import Row
from s3torchconnector._s3client import S3Client
from s3torchconnector.s3dataloader import S3DataLoader
from s3torchconnector.s3manifest import S3Manifest
from s3torchconnector.s3streaming_dataset import S3StreamingDataset
from tests.datasets.support import HeldObjects, config

COUNT, BATCH, LOOK_AHEAD = 40, 4, 5


def manifest_of(server: HeldObjects, numbers: Iterable[int]) -> S3Manifest:
    client = S3Client("us-east-1", endpoint=server.endpoint, s3client_config=config())
    return S3Manifest(build(Row("held", str(number), server.size, "e") for number in numbers), client)


def content(reader: S3Reader) -> int:
    return int.from_bytes(reader.read()[:4], "big")


def dataset_of(server: HeldObjects, changes: dict[str, Any]) -> S3StreamingDataset:
    changes = dict(changes)
    if changes.pop("mix", False):
        halves = [S3StreamingDataset(manifest_of(server, range(i, COUNT, 2)), transform=content) for i in range(2)]
        return S3StreamingDataset.mix(
            {"even": (halves[0], 1), "odd": (halves[1], 1)}, batch_size=BATCH, look_ahead=LOOK_AHEAD, **changes
        )
    return S3StreamingDataset(
        manifest_of(server, range(COUNT)), transform=content, batch_size=BATCH, look_ahead=LOOK_AHEAD, **changes
    )


@pytest.mark.parametrize(
    ("changes", "ahead"),
    [
        ({}, 0),
        ({"transform_threads": 2}, 4),
        ({"transform_threads": 3}, 6),
        ({"balance": "bytes", "num_replicas": 2, "rank": 1}, 0),
        ({"mix": True}, 0),
        ({"mix": True, "transform_threads": 2}, 4),
        ({"mix": True, "balance": "bytes", "num_replicas": 2, "rank": 0, "transform_threads": 2}, 4),
    ],
    ids=str,
)
def test_as_much_is_in_flight_at_the_end_of_a_batch(changes: dict[str, Any], ahead: int) -> None:
    """``ahead`` samples are under way on threads, besides those that are fetched ahead."""
    with HeldObjects(COUNT, hold=range(COUNT)) as server:
        dataset = dataset_of(server, changes)
        count, rank = len(dataset), changes.get("rank", 0)
        batches = iter(S3DataLoader(dataset, collate_fn=list))
        for step in range(count // BATCH):
            expected = [int(key) for key in dataset.keys_of(step, rank=rank)]
            server.release(*expected)
            assert next(batches) == expected
            in_flight = min(count, (step + 1) * BATCH + ahead + LOOK_AHEAD)
            server.wait_for(in_flight)
            assert len(server.seen) == in_flight
        server.release()
        list(batches)  # or transforms would wait for this server, on their threads
