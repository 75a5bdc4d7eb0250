"""Both datasets in DataLoader workers, however these are started and whatever the parent did before."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from torch.utils.data import DataLoader

from s3torchconnector import S3IterableDataset, S3MapDataset
from s3torchconnector._errors import S3NotFoundError
from s3torchconnector.testing import S3Server
from tests.datasets.contract import CONTENTS, SAMPLES, fill
from tests.datasets.support import key_and_bytes

EPOCHS = 3
Options = dict[str, Any]


@pytest.fixture
def options(s3_server: S3Server, bucket: str) -> Options:
    fill(s3_server, bucket, CONTENTS)
    return {"region": s3_server.region, "endpoint": s3_server.endpoint, "transform": key_and_bytes}


@contextlib.contextmanager
def loading(dataset: Any, method: str, workers: int) -> Iterator[DataLoader[Any]]:
    """A loader with persistent workers, which end here also after an error: torch leaves that to the next gc."""
    loader: DataLoader[Any] = DataLoader(
        dataset, batch_size=2, num_workers=workers, collate_fn=list, multiprocessing_context=method,
        persistent_workers=True, timeout=60,
    )  # fmt: skip
    try:
        yield loader
    finally:
        if loader._iterator is not None:
            loader._iterator._shutdown_workers()  # type: ignore[attr-defined]


def epochs(dataset: Any, method: str, workers: int) -> list[list[Any]]:
    with loading(dataset, method, workers) as batches:
        return [[sample for batch in batches for sample in batch] for _ in range(EPOCHS)]


@pytest.mark.parametrize(
    ("method", "workers", "used"),
    [("fork", 2, False), ("fork", 2, True), ("spawn", 1, True), ("forkserver", 2, True)],
)
def test_three_epochs_in_persistent_workers(
    bucket: str, options: Options, method: str, workers: int, used: bool
) -> None:
    """``used``: the parent has read before, so that it has threads and open connections."""
    by_index = S3MapDataset.from_prefix(f"s3://{bucket}", **options)
    sharded = S3IterableDataset.from_prefix(f"s3://{bucket}", **options, enable_sharding=True)
    for dataset, ordered in ((by_index, True), (sharded, False)):
        if used:
            assert list(dataset) == SAMPLES  # type: ignore[arg-type]
        for samples in epochs(dataset, method, workers):
            assert (samples if ordered else sorted(samples)) == SAMPLES
        if used:
            assert list(dataset) == SAMPLES  # type: ignore[arg-type]


def test_workers_started_in_the_middle_of_an_epoch(bucket: str, options: Options) -> None:
    dataset = S3IterableDataset.from_prefix(f"s3://{bucket}", **options, enable_sharding=True)
    samples = iter(dataset)
    first = next(samples)
    for epoch in epochs(dataset, "fork", 2):
        assert sorted(epoch) == SAMPLES
    assert [first, *samples] == SAMPLES


def test_an_iterator_goes_on_in_a_forked_worker(bucket: str, options: Options) -> None:
    """Readers opened before the fork, whose bytes the parent was receiving."""
    options["transform"] = _identity
    readers = list(S3IterableDataset.from_prefix(f"s3://{bucket}", **options))
    with loading(_Reading(readers), "fork", 2) as batches:
        contents = [sample for batch in batches for sample in batch]
    assert contents == [reader.read() for reader in readers] == list(CONTENTS.values())


def _identity(reader: Any) -> Any:
    return reader


class _Reading:
    def __init__(self, readers: list[Any]) -> None:
        self._readers = readers

    def __len__(self) -> int:
        return len(self._readers)

    def __getitem__(self, i: int) -> bytes:
        return bytes(self._readers[i].read())


@pytest.mark.parametrize("method", ["fork", "forkserver"])
@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("cls", [S3MapDataset, S3IterableDataset])
def test_readers_travel_from_workers(
    bucket: str, options: Options, cls: Any, batch_size: int | None, method: str
) -> None:
    """Without a transform, the samples are the readers themselves."""
    del options["transform"]
    dataset = cls.from_prefix(f"s3://{bucket}", **options)
    loader: DataLoader[Any] = DataLoader(
        dataset, batch_size=batch_size, num_workers=1, collate_fn=_identity, multiprocessing_context=method, timeout=30
    )
    readers = list(loader) if batch_size is None else [reader for batch in loader for reader in batch]
    assert [(reader.key, reader.read()) for reader in readers] == SAMPLES


def test_a_worker_takes_every_nth_sample(bucket: str, options: Options) -> None:
    dataset = S3IterableDataset.from_prefix(f"s3://{bucket}", **options, enable_sharding=True)
    with loading(dataset, "fork", 3) as batches:
        assert list(batches) == [SAMPLES[i : i + 4 : 3] for start in (0, 6) for i in range(start, start + 3)]


def test_without_sharding_each_worker_yields_everything(bucket: str, options: Options) -> None:
    dataset = S3IterableDataset.from_prefix(f"s3://{bucket}", **options)
    for samples in epochs(dataset, "fork", 2):
        assert Counter(samples) == Counter(SAMPLES * 2)


@pytest.mark.parametrize("cls", [S3MapDataset, S3IterableDataset])
def test_a_workers_error_arrives_and_names_its_object(bucket: str, options: Options, cls: Callable[..., Any]) -> None:
    uris = [f"s3://{bucket}/{key}" for key in CONTENTS]
    uris[3] = f"s3://{bucket}/data/nope"
    dataset = cls.from_objects(uris, **options)  # type: ignore[attr-defined]
    with pytest.raises(S3NotFoundError, match=rf"The key does not exist.*s3://{bucket}/data/nope"):
        epochs(dataset, "fork", 2)


def test_leaving_an_epoch_ends_its_workers(bucket: str, options: Options) -> None:
    dataset = S3IterableDataset.from_prefix(f"s3://{bucket}", **options)
    before = set(psutil.Process().children())
    loader: DataLoader[Any] = DataLoader(
        dataset, batch_size=2, num_workers=2, collate_fn=list, multiprocessing_context="fork"
    )
    batches = iter(loader)
    assert next(batches) == SAMPLES[:2]
    workers = set(psutil.Process().children()) - before
    assert len(workers) == 2
    del batches
    assert not psutil.wait_procs(workers, timeout=20)[1]
