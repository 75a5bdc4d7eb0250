"""What the map and the iterable dataset have of it: manifests, errors that end nothing, states."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import pytest
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from s3torchconnector import S3IterableDataset, S3Manifest, S3MapDataset, S3Reader
from s3torchconnector.errors import S3ConfigurationError, S3NotFoundError, S3ObjectChangedError
from s3torchconnector.testing import S3Server
from tests.servers.moto_server import MotoServer
from tests.servers.proxy import RecordingProxy
from tests.streaming.support import Options, number, numbered, options

COUNT = 23


@pytest.fixture
def uri(s3_server: S3Server, bucket: str) -> str:
    return numbered(s3_server, bucket, COUNT)


@pytest.fixture
def where(s3_server: S3Server) -> Options:
    return options(s3_server)


def flat(batches: Any) -> list[int]:
    return [sample for batch in batches for sample in batch]


# -- manifests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "forkserver"])
@pytest.mark.parametrize("cls", [S3MapDataset, S3IterableDataset])
def test_a_manifests_objects_are_not_listed(
    uri: str, where: Options, proxy: RecordingProxy, cls: Any, method: str
) -> None:
    manifest = S3Manifest.from_prefix(uri, **{**where, "endpoint": proxy.endpoint})
    proxy.exchanges.clear()
    dataset = cls.from_manifest(manifest, transform=number)
    assert list(dataset) == list(range(COUNT))
    loader: DataLoader[Any] = DataLoader(
        dataset, batch_size=4, num_workers=1, collate_fn=list, multiprocessing_context=method
    )
    assert flat(loader) == list(range(COUNT))
    assert not any(each.query for each in proxy.exchanges)


@pytest.mark.parametrize("cls", [S3MapDataset, S3IterableDataset])
def test_a_manifests_objects_are_read_as_listed(uri: str, where: Options, bucket: str, cls: Any) -> None:
    manifest = S3Manifest.from_prefix(uri, **where)
    stream = manifest._client.put_object(bucket, "data/0000")
    stream.write(b"7")
    stream.close()
    dataset = cls.from_manifest(manifest, transform=number)
    with pytest.raises(S3ObjectChangedError, match="overwritten after it was listed"):
        next(iter(dataset))
    assert next(iter(cls.from_prefix(uri, **where, transform=number))) == 7


def test_conditions_and_parts_are_no_obstacle(moto_server: MotoServer, moto_bucket: str) -> None:
    """moto honours ``If-Match`` and names parts in ETags; a large object takes several requests."""
    from s3torchconnector import S3Client, S3ClientConfig

    where: Options = {"region": "us-east-1", "endpoint": moto_server.endpoint}
    config = S3ClientConfig(part_size=5 * 2**20)
    data = {"empty": b"", "large": bytes(range(256)) * 4096 * 12, "small": b"small"}
    client = S3Client(**where, s3client_config=config)
    for key, content in data.items():
        stream = client.put_object(moto_bucket, key)
        stream.write(content)
        stream.close()
    manifest = S3Manifest.from_prefix(f"s3://{moto_bucket}", **where, s3client_config=config)
    dataset = S3MapDataset.from_manifest(manifest, transform=S3Reader.read)
    assert dataset.__getitems__(range(3)) == list(data.values())
    assert pickle.loads(pickle.dumps(dataset))[1] == data["large"]
    readers = list(S3MapDataset.from_manifest(manifest))
    assert [pickle.loads(pickle.dumps(reader)).read() for reader in readers] == list(data.values())
    for key in data:
        stream = client.put_object(moto_bucket, key)
        stream.write(data[key][::-1] or b"no longer empty")
        stream.close()
    for i in range(3):
        with pytest.raises(S3ObjectChangedError, match="overwritten after it was listed"):
            dataset[i]


# -- errors -----------------------------------------------------------------------------------------------------------


def fail_at_five(reader: S3Reader) -> int:
    value = number(reader)
    if value == 5:
        raise ValueError("unlucky")
    return value


def test_an_error_that_is_caught_costs_one_sample(uri: str, where: Options) -> None:
    samples = iter(S3IterableDataset.from_prefix(uri, **where, transform=fail_at_five))
    seen = [next(samples) for _ in range(5)]
    with pytest.raises(ValueError, match="unlucky"):
        next(samples)
    assert seen + list(samples) == [i for i in range(COUNT) if i != 5]


def test_a_missing_object_that_is_caught_costs_one_sample(uri: str, where: Options) -> None:
    uris = [f"{uri}{i:04}" for i in (0, 1, 999, 2)]
    samples = iter(S3IterableDataset.from_objects(uris, **where, transform=number))
    assert [next(samples), next(samples)] == [0, 1]
    with pytest.raises(S3NotFoundError):
        next(samples)
    assert list(samples) == [2]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loaders_epoch_goes_on_after_an_error(uri: str, where: Options, workers: int) -> None:
    dataset = S3IterableDataset.from_prefix(uri, **where, transform=fail_at_five, enable_sharding=True)
    batches = iter(DataLoader(dataset, batch_size=1, num_workers=workers, collate_fn=list))
    seen, errors = [], 0
    while True:
        try:
            seen += next(batches)
        except ValueError:
            errors += 1
        except StopIteration:
            break
    assert (errors, sorted(seen)) == (1, [i for i in range(COUNT) if i != 5])


# -- states of the iterable dataset -----------------------------------------------------------------------------------


# Each pair of values together once.
_SOURCES, _TAKEN, _WORKERS = ("prefix", "objects", "manifest"), (0, 3, 6, None), ((0, False), (2, False), (2, True))
_PAIRS = [
    (source, taken, *_WORKERS[(i + j) % 3]) for i, source in enumerate(_SOURCES) for j, taken in enumerate(_TAKEN)
]


# What a pass without a stop gives, by source and number of workers.
_whole: dict[tuple[str, int], list[int]] = {}


@pytest.mark.parametrize(("how", "taken", "workers", "persistent"), _PAIRS)
def test_a_stateful_loader_reads_nothing_again(
    uri: str, where: Options, proxy: RecordingProxy, how: str, taken: int | None, workers: int, persistent: bool
) -> None:
    def loader(endpoint: str | None = None) -> Any:
        place = {**where, "endpoint": endpoint or where["endpoint"]}
        more: Options = {"transform": number, "enable_sharding": True, "look_ahead": 2}
        if how == "prefix":
            dataset = S3IterableDataset.from_prefix(uri, **place, **more)
        elif how == "objects":
            dataset = S3IterableDataset.from_objects([f"{uri}{i:04}" for i in range(COUNT)], **place, **more)
        else:
            dataset = S3IterableDataset.from_manifest(S3Manifest.from_prefix(uri, **place), **more)
        return StatefulDataLoader(
            dataset, batch_size=4, num_workers=workers, persistent_workers=persistent, collate_fn=list,
            prefetch_factor=2 if workers else None,
        )  # fmt: skip

    whole = _whole.get((how, workers)) or _whole.setdefault((how, workers), flat(loader()))
    assert sorted(whole) == list(range(COUNT))
    first = loader()
    seen = flat(itertools.islice(first, taken))
    state = pickle.loads(pickle.dumps(first.state_dict()))
    other = loader(proxy.endpoint)
    other.load_state_dict(state)
    rest = flat(other)
    if taken is None:
        assert rest == whole
    else:
        assert seen + rest == whole
        read = {int(each.path[-4:]) for each in proxy.exchanges if "/data/" in each.path}
        assert read == set(rest)
        assert flat(other) == whole


def test_a_prefix_is_listed_on_from_the_last_key(uri: str, where: Options, proxy: RecordingProxy) -> None:
    dataset = S3IterableDataset.from_prefix(uri, **where, transform=number)
    samples = iter(dataset)
    seen = [next(samples) for _ in range(9)]
    state = dataset.state_dict()
    other = S3IterableDataset.from_prefix(uri, **{**where, "endpoint": proxy.endpoint}, transform=number)
    other.load_state_dict(state)
    assert other.state_dict() == state
    assert seen + list(other) == list(range(COUNT))
    [listing] = [each for each in proxy.exchanges if each.query]
    assert listing.query["start-after"] == "data/0008"


def test_a_state_of_other_workers_is_refused(uri: str, where: Options) -> None:
    dataset = S3IterableDataset.from_prefix(uri, **where, enable_sharding=True)
    state = dataset.state_dict()
    for wrong in ({"world_size": 2}, {"version": 2}, {"handed": -1}, {"last": 3}):
        with pytest.raises(S3ConfigurationError):
            dataset.load_state_dict({**state, **wrong})
    with pytest.raises(S3ConfigurationError, match="not a state of an S3IterableDataset"):
        dataset.load_state_dict({})
