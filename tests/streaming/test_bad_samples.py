"""``on_error="replace"``: bad content is replaced, counted and bounded; trouble is not hidden. And ``stats``.

Without it, a note of the error names the sample.
"""

from __future__ import annotations

import itertools
import logging
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from s3torchconnector import S3ClientConfig, S3IterableDataset, S3MapDataset, S3Reader
from s3torchconnector._datasets import _bad_samples
from s3torchconnector._s3bucket_key_data import S3BucketKeyData
from s3torchconnector._samples._items import GroupItem, name_sample
from s3torchconnector.errors import (
    S3ChecksumError,
    S3ConfigurationError,
    S3ConnectionError,
    S3FormatError,
    S3NotFoundError,
)
from s3torchconnector.s3dataloader import S3DataLoader
from s3torchconnector.s3manifest import S3Manifest
from s3torchconnector.s3streaming_dataset import S3StreamingDataset
from s3torchconnector.testing import S3Server
from tests.servers.http_messages import s3_error
from tests.servers.proxy import RecordingProxy, Replace, first
from tests.streaming.support import fill, loading, number, numbered, options

COUNT = 97
_HAS_NOTES = sys.version_info >= (3, 11)  # errors of Python 3.10 have none


@pytest.fixture(scope="module")
def manifest(s3_server: S3Server) -> S3Manifest:
    s3_server.make_bucket("bad-samples")
    return S3Manifest.from_prefix(numbered(s3_server, "bad-samples", COUNT), **options(s3_server))


def decode(reader: S3Reader) -> int:
    value = number(reader)
    if value % 10 == 3:
        raise ValueError("cannot identify image file")
    return value


def dataset_of(manifest: S3Manifest, **changes: Any) -> S3StreamingDataset:
    defaults = {"transform": decode, "batch_size": 4, "on_error": "replace"}
    return S3StreamingDataset(manifest, **{**defaults, **changes})


def test_another_sample_takes_the_place_whatever_the_topology(manifest: S3Manifest) -> None:
    expected = list(dataset_of(manifest, on_error="raise", transform=number))
    found = list(dataset_of(manifest))
    assert len(found) == COUNT
    assert not any(sample % 10 == 3 for sample in found)
    assert [new for new, old in zip(found, expected, strict=True) if old % 10 != 3] == [
        old for old in expected if old % 10 != 3
    ]
    for replicas, batch_size, workers in ((3, 5, 0), (2, 4, 2)):
        datasets = [
            dataset_of(manifest, num_replicas=replicas, rank=rank, batch_size=batch_size, even_batches=False)
            for rank in range(replicas)
        ]
        loaders = [S3DataLoader(dataset, num_workers=workers, collate_fn=list) for dataset in datasets]
        steps = itertools.zip_longest(*loaders, fillvalue=[])
        assert [sample for step in steps for batch in step for sample in batch] == found


def test_errors_are_named_and_counted(manifest: S3Manifest, caplog: pytest.LogCaptureFixture) -> None:
    loader = S3DataLoader(dataset_of(manifest), collate_fn=list)
    with caplog.at_level(logging.WARNING):
        samples = [sample for batch in loader for sample in batch]
    bad = [record for record in caplog.records if "replaced by another sample" in record.message]
    assert len(bad) == 10
    assert "s3://bad-samples/data/00" in bad[0].message
    assert "ValueError: cannot identify image file" in bad[0].message
    stats = loader.stats()
    assert (stats["samples"], stats["replaced"]) == (COUNT, 10)
    assert 10 <= stats["errors"] <= 13  # a replacement may be bad, too
    assert len(samples) == COUNT


@pytest.mark.parametrize("workers", [0, 3])
def test_more_errors_than_the_budget_are_raised_with_their_number(manifest: S3Manifest, workers: int) -> None:
    message = r"[567] samples of this epoch could not be made.*max_errors=4.*data/00"
    with (
        loading(dataset_of(manifest, max_errors=4), num_workers=workers) as loader,
        pytest.raises(S3FormatError, match=message),
    ):
        list(loader)


def test_the_budget_is_each_epochs_own(manifest: S3Manifest) -> None:
    dataset = dataset_of(manifest, max_errors=15)
    assert [len(list(dataset)) for _ in range(3)] == [COUNT] * 3


def hopeless(reader: S3Reader) -> int:
    raise ValueError(reader.key)


def test_where_no_sample_is_good_the_error_is_raised(manifest: S3Manifest) -> None:
    with pytest.raises(S3FormatError, match="11 samples of this epoch"):
        next(iter(dataset_of(manifest, transform=hopeless)))


def of_trouble(reader: S3Reader) -> int:
    """As decoders do that wrap what the file raises."""
    value = number(reader)
    if value == 13:
        try:
            raise S3ConnectionError("reset")
        except OSError as error:
            raise ValueError("cannot identify image file") from error
    return value


def test_errors_of_s3_are_not_replaced(manifest: S3Manifest) -> None:
    with pytest.raises(ValueError, match="cannot identify image file"):
        list(dataset_of(manifest, transform=of_trouble))


@pytest.mark.parametrize(
    ("error", "of_content"),
    [
        (ValueError(), True),
        (OSError(), True),
        (S3FormatError("x"), True),
        (S3ChecksumError("x"), True),
        (S3NotFoundError("x"), False),
        (S3ConnectionError("x"), False),
        (MemoryError(), False),
        (KeyboardInterrupt(), False),
        (SystemExit(), False),
    ],
)
def test_which_errors_are_of_content(error: BaseException, of_content: bool) -> None:
    assert _bad_samples.is_of_content(error) is of_content
    wrapped = ValueError()
    wrapped.__context__ = error
    error.__context__ = wrapped  # a circle, as careless programs make them
    assert _bad_samples.is_of_content(wrapped) is of_content


def test_replacements_are_drawn_at_random() -> None:
    drawn = Counter(sample for position in range(500) for sample in _bad_samples.candidates(1, 2, position, 5))
    assert sum(drawn.values()) == 5_000
    assert all(900 < count < 1_100 for count in drawn.values())


@pytest.mark.parametrize("wrong", [{"on_error": "skip"}, {"max_errors": -1}, {"max_errors": 0.01}])
def test_impossible_arguments_are_refused(manifest: S3Manifest, wrong: dict[str, Any]) -> None:
    with pytest.raises(S3ConfigurationError):
        dataset_of(manifest, **wrong)


def stops(reader: S3Reader) -> int:
    raise StopIteration


def test_stop_iteration_in_a_transform_does_not_end_the_epoch(manifest: S3Manifest) -> None:
    with pytest.raises(RuntimeError, match="the transform raised StopIteration"):
        list(dataset_of(manifest, transform=stops, on_error="raise"))


@pytest.mark.parametrize("workers", [0, 2])
def test_stats_are_totals_and_differences(manifest: S3Manifest, workers: int) -> None:
    loader = S3DataLoader(dataset_of(manifest, transform=number), collate_fn=list, num_workers=workers)
    for epoch in (1, 2):
        assert len(list(loader)) == 25
        stats = loader.stats()
        since = stats.pop("since_last_call")
        assert (stats["samples"], since["samples"]) == (epoch * COUNT, COUNT)
        assert (stats["bytes"], since["bytes"]) == (epoch * manifest.total_bytes, manifest.total_bytes)
        assert stats["wait_seconds"] >= since["wait_seconds"] > 0
        assert stats["transform_seconds"] >= since["transform_seconds"] > 0
        assert (stats["errors"], stats["replaced"]) == (0, 0)
    assert loader.stats()["since_last_call"]["samples"] == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_stats_count_requests_and_retries(
    manifest: S3Manifest, s3_server: S3Server, proxy: RecordingProxy, workers: int
) -> None:
    proxy.misbehave = first(3, Replace(s3_error(503, "InternalError")))
    dataset = dataset_of(
        manifest, transform=number, endpoint=proxy.endpoint, s3client_config=S3ClientConfig(hedge=False)
    )
    with loading(dataset, num_workers=workers) as loader:
        assert len(list(loader)) == 25
        stats = loader.stats()
        assert stats["requests"] == len(proxy.exchanges) >= COUNT + 3
        assert stats["retries"] == 3
        assert len(list(loader)) == 25
        since = loader.stats()["since_last_call"]
        assert (since["requests"], since["retries"]) == (len(proxy.exchanges) - stats["requests"], 0)


# -- which sample an error is about -----------------------------------------------------------------------------------


def failing_by_content(reader: S3Reader) -> bytes:
    data = reader.read()
    if data == b"1":
        raise ValueError("boom")
    if data == b"2":
        raise StopIteration
    return data


class Hooked(S3IterableDataset):
    def _get_transformed_object(self, bucket_key: S3BucketKeyData) -> Any:
        return [super()._get_transformed_object(bucket_key)]


class Indexed(S3MapDataset):
    def __getitem__(self, i: int) -> Any:
        return super().__getitem__((i + 1) % 3)


class Opening(S3MapDataset):
    def _get_object(self, i: int) -> Any:
        return super()._get_object(i)


def _streaming(threads: int) -> Callable[..., Any]:
    def make(uri: str, **where: Any) -> S3StreamingDataset:
        return S3StreamingDataset(uri, **where, shuffle=False, batch_size=3, transform_threads=threads)

    return make


@pytest.mark.parametrize(
    ("make", "fails"),
    [
        (S3IterableDataset.from_prefix, list),
        (Hooked.from_prefix, list),
        (S3MapDataset.from_prefix, lambda dataset: dataset[1]),
        (S3MapDataset.from_prefix, lambda dataset: dataset.__getitems__([0, 1])),
        (Indexed.from_prefix, lambda dataset: len(dataset) and dataset.__getitems__([0, 2])),
        (Opening.from_prefix, lambda dataset: len(dataset) and dataset.__getitems__([0, 1])),
        (_streaming(0), list),
        (_streaming(2), list),
    ],
)
def test_an_error_of_a_transform_names_its_sample(s3_server: S3Server, bucket: str, make: Any, fails: Any) -> None:
    fill(s3_server, bucket, {f"data/{i}": str(i).encode() for i in range(3)})
    dataset = make(f"s3://{bucket}/data/", transform=failing_by_content, **options(s3_server))
    with pytest.raises(ValueError, match=r"^boom") as caught:
        fails(dataset)
    assert getattr(caught.value, "__notes__", []) == [f"in the sample s3://{bucket}/data/1"] * _HAS_NOTES


def test_errors_of_workers_name_their_sample(s3_server: S3Server, bucket: str) -> None:
    """They are texts when they come from there; also those of a StopIteration."""
    fill(s3_server, bucket, {"data/1": b"1", "data/2": b"2"})
    manifest = S3Manifest.from_prefix(f"s3://{bucket}/data/", **options(s3_server))
    dataset = S3StreamingDataset(manifest, transform=failing_by_content, shuffle=False)
    with loading(dataset, num_workers=1) as loader:
        batches = iter(loader)
        for kind, place in ((ValueError, 1), (RuntimeError, 2)):
            with pytest.raises(kind) as caught:
                next(batches)
            assert (f"in the sample s3://{bucket}/data/{place}" in str(caught.value)) == _HAS_NOTES


def test_what_a_note_says() -> None:
    part = S3BucketKeyData("b", "a/1.jpg")
    error = ValueError("boom")
    for item in (part, part, GroupItem("a/1", [("jpg", part)])):
        name_sample(error, item)
    assert (
        getattr(error, "__notes__", [])
        == ["in the sample s3://b/a/1.jpg", "in the sample s3://b/a/1"][: 2 * _HAS_NOTES]
    )
    for other in (S3FormatError("says it"), KeyboardInterrupt()):
        name_sample(other, part)
        assert not hasattr(other, "__notes__")
