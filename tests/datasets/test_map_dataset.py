"""``S3MapDataset``: the contract of both datasets, indices, and how many requests what costs."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from torch.utils.data import DataLoader, Dataset

from s3torchconnector import S3MapDataset, S3Reader
from s3torchconnector.testing import S3Server
from tests.datasets.contract import CONTENTS, SAMPLES, DatasetContract, fill
from tests.datasets.support import HeldObjects, key_and_bytes, read, wait_until_budget_is_free
from tests.servers.proxy import RecordingProxy


class TestS3MapDataset(DatasetContract):
    dataset_class = S3MapDataset


@pytest.fixture
def dataset(s3_server: S3Server, bucket: str, proxy: RecordingProxy) -> S3MapDataset:
    fill(s3_server, bucket, CONTENTS)
    return S3MapDataset.from_prefix(
        f"s3://{bucket}", region="us-east-1", endpoint=proxy.endpoint, transform=key_and_bytes
    )


def test_is_a_map_style_dataset_of_pytorch(dataset: S3MapDataset) -> None:
    assert isinstance(dataset, Dataset)
    assert len(dataset) == len(CONTENTS)


def test_indices_count_from_either_end(dataset: S3MapDataset) -> None:
    for i in range(-len(SAMPLES), len(SAMPLES)):
        assert dataset[i] == SAMPLES[i]


@pytest.mark.parametrize("i", [12, -13, 1 << 70])
def test_an_index_out_of_range_is_named(dataset: S3MapDataset, i: int) -> None:
    with pytest.raises(IndexError, match=f"index {i} is out of range for a dataset of 12 objects"):
        dataset[i]
    with pytest.raises(IndexError):
        dataset.__getitems__([0, i])


def test_lists_once(dataset: S3MapDataset, proxy: RecordingProxy) -> None:
    assert proxy.exchanges == []
    assert [len(dataset), len(dataset), dataset[0], dataset[1]] == [12, 12, *SAMPLES[:2]]
    assert len([exchange for exchange in proxy.exchanges if "list-type" in exchange.query]) == 1


def test_an_item_is_exactly_one_request(dataset: S3MapDataset, proxy: RecordingProxy, bucket: str) -> None:
    len(dataset)
    before = len(proxy.exchanges)
    assert dataset[5] == SAMPLES[5]
    (exchange,) = proxy.exchanges[before:]
    assert (exchange.method, exchange.path) == ("GET", f"/{bucket}/{SAMPLES[5][0]}")


def test_a_batch_makes_one_request_for_each_object_in_order(
    s3_server: S3Server, bucket: str, proxy: RecordingProxy
) -> None:
    contents = {f"{i:03}": bytes([i]) * (i + 1) for i in range(80)}
    fill(s3_server, bucket, contents)
    dataset = S3MapDataset.from_prefix(
        f"s3://{bucket}", region="us-east-1", endpoint=proxy.endpoint, transform=key_and_bytes
    )
    len(dataset)
    before = len(proxy.exchanges)
    indices = [(i * 37) % 80 for i in range(64)]
    assert dataset.__getitems__(indices) == [list(contents.items())[i] for i in indices]
    paths = [exchange.path for exchange in proxy.exchanges[before:]]
    assert sorted(paths) == sorted(f"/{bucket}/{i:03}" for i in indices)


def test_a_data_loader_asks_for_whole_batches(dataset: S3MapDataset) -> None:
    asked: list[list[int]] = []
    whole: Callable[[Any], list[Any]] = dataset.__getitems__
    dataset.__getitems__ = lambda indices: asked.append(list(indices)) or whole(indices)  # type: ignore[method-assign, assignment, func-returns-value]
    loader: DataLoader[Any] = DataLoader(dataset, batch_size=5, collate_fn=list)
    assert list(loader) == [SAMPLES[:5], SAMPLES[5:10], SAMPLES[10:]]
    assert asked == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]


class Labelled(S3MapDataset):
    def __getitem__(self, i: int) -> tuple[Any, str]:
        return super().__getitem__(i), f"label {i}"


@pytest.mark.parametrize("workers", [0, 1])
def test_an_overridden_getitem_makes_the_samples_of_batches(s3_server: S3Server, bucket: str, workers: int) -> None:
    fill(s3_server, bucket, CONTENTS)
    dataset = Labelled.from_prefix(
        f"s3://{bucket}", region="us-east-1", endpoint=s3_server.endpoint, transform=key_and_bytes
    )
    loader: DataLoader[Any] = DataLoader(dataset, batch_size=5, collate_fn=list, num_workers=workers)
    samples = [(sample, f"label {i}") for i, sample in enumerate(SAMPLES)]
    assert list(loader) == [samples[:5], samples[5:10], samples[10:]]


def test_the_same_object_twice_in_a_batch(dataset: S3MapDataset) -> None:
    assert dataset.__getitems__([3, 3, -9]) == [SAMPLES[3]] * 3


def test_an_empty_batch(dataset: S3MapDataset) -> None:
    assert dataset.__getitems__([]) == []


def test_a_batch_is_fetched_concurrently() -> None:
    with HeldObjects(10, hold=range(10)) as server:

        def transform(reader: S3Reader) -> bytes:
            server.wait_for(8)  # before the first response
            server.release()
            return reader.read()

        dataset = server.map_dataset(transform)
        assert dataset.__getitems__(range(10)) == [server.content(i) for i in range(10)]
        assert sorted(server.seen) == list(range(10))


def test_a_missing_object_fails_its_batch_and_is_named() -> None:
    with HeldObjects(8, hold=range(4, 8), missing=[3]) as server:
        dataset = server.map_dataset()
        with pytest.raises(FileNotFoundError, match=r"The key does not exist.*s3://held/3") as caught:
            dataset.__getitems__(range(8))
        assert (caught.value.bucket, caught.value.key) == ("held", "3")  # type: ignore[attr-defined]
        assert dataset.__getitems__([0]) == [server.content(0)]
        wait_until_budget_is_free(dataset)  # the others, which get no response, are cancelled by then


def test_a_copy_of_a_used_dataset_does_not_list_again(dataset: S3MapDataset, proxy: RecordingProxy) -> None:
    assert len(dataset) == 12
    before = len(proxy.exchanges)
    copy = pickle.loads(pickle.dumps(dataset))
    assert len(copy) == 12
    assert copy[3] == SAMPLES[3]
    assert len(proxy.exchanges) == before + 1


@pytest.mark.parametrize("used", [False, True])
def test_the_names_of_many_objects_pickle_compactly(used: bool) -> None:
    uris = [f"s3://bucket/some/folder/{i:08}" for i in range(50_000)]
    dataset = S3MapDataset.from_objects(uris, region="us-east-1", transform=read)
    if used:
        assert len(dataset) == len(uris)
    assert len(pickle.dumps(dataset)) < 50_000 * (len("some/folder/00000000") + 20) + 10_000


def test_facts_from_a_listing_need_no_request(proxy: RecordingProxy, bucket: str, s3_server: S3Server) -> None:
    folder = s3_server.folder / bucket
    for name in ("1.bin", "2.bin"):
        (folder / name).write_bytes(name.encode())
    told = []

    def construct(get_object_info: Callable[[], Any], **options: Any) -> S3Reader:
        told.append(get_object_info())
        return S3Reader(get_object_info=get_object_info, **options)

    dataset = S3MapDataset.from_prefix(
        f"s3://{bucket}", region="us-east-1", endpoint=proxy.endpoint, transform=read, reader_constructor=construct
    )
    assert dataset.__getitems__([1, 0]) == [b"2.bin", b"1.bin"]
    assert pickle.loads(pickle.dumps(dataset._table))[0].object_info == told[1]
    assert [(info.key, info.size) for info in told] == [("2.bin", 5), ("1.bin", 5)]
    assert all(len(info.etag.strip('"')) == 32 for info in told)
    assert [info.last_modified for info in told] == [int((folder / info.key).stat().st_mtime) for info in told]
    assert [each.request.method for each in proxy.exchanges] == ["GET"] * 3
