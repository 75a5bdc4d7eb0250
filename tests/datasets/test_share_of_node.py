"""Data workers take a share of what the settings say of a node, so that many workers do not ask for many times it."""

from __future__ import annotations

from typing import Any

import pytest
from torch.utils.data import DataLoader, Dataset

from s3torchconnector import S3ClientConfig, S3MapDataset
from s3torchconnector._s3client import S3Client
from tests.datasets.support import HeldObjects, runtime_of

Aims = list[float]  # throughput, connections, memory


def aims_of(runtime: Any) -> Aims:
    return [runtime.config.throughput_target_gbps, runtime.config.max_connections, runtime.budget.limit]


class OfWorker(Dataset[Aims]):
    """What each worker aims for, once it has read an object."""

    def __init__(self, readers: S3MapDataset) -> None:
        self.readers = readers

    def __len__(self) -> int:
        return len(self.readers)

    def __getitem__(self, i: int) -> Aims:
        assert self.readers[i]
        return aims_of(runtime_of(self.readers))


@pytest.mark.parametrize(
    ("method", "workers", "ranks"),
    [("fork", 3, None), ("fork", 3, "4"), ("fork", 3, "no number"), ("spawn", 2, "6")],  # each spawned one takes 3 s
)
def test_workers_divide_the_throughput_of_the_node(
    method: str, workers: int, ranks: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if ranks is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    with HeldObjects(3) as server:
        objects = server.map_dataset(max_connections=240, throughput_target_gbps=12.0, memory_budget=64 << 20)
        assert objects[0]
        loader = DataLoader(OfWorker(objects), batch_size=None, num_workers=workers, multiprocessing_context=method)
        share = [1.0, 160, 64 << 20] if ranks in ("4", "6") else [4.0, 240, 64 << 20]
        assert list(loader) == [share] * 3
        assert aims_of(runtime_of(objects)) == [12.0, 240, 64 << 20]
        assert objects._source.client.s3client_config.max_connections == 240


@pytest.mark.parametrize(("most", "workers", "share"), [
    (192, 1, 192), (192, 8, 192), (192, 16, 96), (192, 64, 32), (20, 64, 20), (1, 9, 1), (1000, 64, 125),
])  # fmt: skip
def test_a_worker_has_connections_enough_for_small_objects(
    most: int, workers: int, share: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from s3torchconnector._transfer.engine import _node

    monkeypatch.setattr(_node, "_count_workers", lambda: workers)
    config = S3ClientConfig(max_connections=most)
    with S3Client("us-east-1", endpoint="http://127.0.0.1:9", s3client_config=config) as client:
        runtime = client._runtime()
        assert runtime.config.max_connections == share
        assert runtime.config.throughput_target_gbps == config.throughput_target_gbps / workers
        assert runtime.streams >= min(4, most)
