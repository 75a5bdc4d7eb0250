"""``S3StreamingDataset`` and ``S3DataLoader``: exactly once, whatever happens, in an order that depends on nothing."""

from __future__ import annotations

import contextlib
import itertools
import pickle
import random
from collections import Counter
from typing import Any

import psutil
import pytest
import torch
from torch.utils.data import DataLoader

from s3torchconnector import S3Reader
from s3torchconnector.errors import S3ConfigurationError, S3NotFoundError, S3ObjectChangedError
from s3torchconnector.s3dataloader import S3DataLoader
from s3torchconnector.s3manifest import S3Manifest
from s3torchconnector.s3streaming_dataset import S3StreamingDataset
from s3torchconnector.testing import S3Server
from tests.servers.proxy import RecordingProxy
from tests.streaming.support import Options, loading, number, numbered, options

COUNT = 101  # a prime: no topology divides it


@pytest.fixture(scope="module")
def manifest(s3_server: S3Server) -> S3Manifest:
    """Objects that hold their numbers."""
    s3_server.make_bucket("streaming")
    return S3Manifest.from_prefix(numbered(s3_server, "streaming", COUNT), **options(s3_server))


def dataset_of(manifest: S3Manifest, **changes: Any) -> S3StreamingDataset:
    return S3StreamingDataset(manifest, **{"transform": number, "batch_size": 4, "seed": 7, **changes})


def ranks_of(manifest: S3Manifest, replicas: int, **changes: Any) -> list[S3StreamingDataset]:
    return [dataset_of(manifest, num_replicas=replicas, rank=rank, **changes) for rank in range(replicas)]


def steps(loaders: list[S3DataLoader], stop: int | None = None) -> list[list[int]]:
    """The samples of each step, of all ranks together in turn."""
    taken = itertools.zip_longest(*(itertools.islice(loader, stop) for loader in loaders), fillvalue=[])
    return [[sample for batch in step for sample in batch] for step in taken]


def flat(steps: list[list[int]]) -> list[int]:
    return [sample for step in steps for sample in step]


# -- order ------------------------------------------------------------------------------------------------------------


def test_the_order_depends_on_no_topology(manifest: S3Manifest) -> None:
    order = flat(steps([S3DataLoader(dataset_of(manifest), collate_fn=list)]))
    assert sorted(order) == list(range(COUNT))
    assert order != list(range(COUNT))
    for replicas, batch_size, workers in ((1, 7, 0), (3, 2, 0), (2, 5, 2), (1, 101, 3), (5, 1, 0)):
        datasets = ranks_of(manifest, replicas, batch_size=batch_size, even_batches=False)
        with contextlib.ExitStack() as stack:
            loaders = [stack.enter_context(loading(each, num_workers=workers)) for each in datasets]
            assert flat(steps(loaders)) == order


def test_seeds_and_epochs_have_orders_of_their_own(manifest: S3Manifest) -> None:
    orders = []
    for seed in (1, 2):
        dataset = dataset_of(manifest, seed=seed)
        orders += [list(dataset), list(dataset)]
        assert dataset.epoch == 1
    assert len(set(map(tuple, orders))) == 4
    assert all(sorted(order) == list(range(COUNT)) for order in orders)
    assert list(dataset_of(manifest, shuffle=False)) == list(range(COUNT))


@pytest.mark.parametrize(("method", "persistent"), [("fork", False), ("fork", True), ("forkserver", True)])
def test_a_new_order_each_pass_without_a_call(manifest: S3Manifest, method: str, persistent: bool) -> None:
    expected = [list(dataset) for dataset in [dataset_of(manifest)] for _ in range(4)]
    with loading(
        dataset_of(manifest), num_workers=2, persistent_workers=persistent, multiprocessing_context=method
    ) as loader:
        assert [flat(list(loader)) for _ in range(2)] == expected[:2]
        next(iter(loader))  # leaving a pass early counts too
        assert flat(list(loader)) == expected[3]
        loader.dataset.set_epoch(1)
        assert flat(list(loader)) == expected[1]
        assert loader.dataset.epoch == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_an_iterator_that_is_not_used_is_no_pass(manifest: S3Manifest, workers: int) -> None:
    expected = [list(dataset) for dataset in [dataset_of(manifest)] for _ in range(2)]
    with loading(dataset_of(manifest), num_workers=workers) as loader:
        iter(loader)
        assert flat(list(loader)) == expected[0]
        state = {**loader.state_dict(), "position": 8}
        loader.load_state_dict(state)
        iter(loader)
        iter(loader)
        assert flat(list(loader)) == expected[0][8:]
        loader.dataset.set_epoch(1)
        iter(loader)
        assert flat(list(loader)) == expected[1]


def test_a_plain_loader_gives_each_sample_once(manifest: S3Manifest) -> None:
    expected = [list(dataset) for dataset in [dataset_of(manifest)] for _ in range(2)]
    loader: DataLoader[Any] = DataLoader(dataset_of(manifest), batch_size=4, num_workers=2, collate_fn=list)
    assert [flat(list(loader)) for _ in range(2)] == expected
    others: DataLoader[Any] = DataLoader(dataset_of(manifest), batch_size=3, num_workers=3, collate_fn=list)
    assert sorted(flat(list(others))) == list(range(COUNT))


# -- the end of an epoch ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replicas", [1, 2, 3, 7])
@pytest.mark.parametrize("tail", [{}, {"drop_last": True}, {"even_batches": False}])
def test_all_ranks_get_equal_batches_and_len_says_how_many(
    manifest: S3Manifest, replicas: int, tail: dict[str, bool]
) -> None:
    datasets = ranks_of(manifest, replicas, **tail)
    loaders = [S3DataLoader(dataset, collate_fn=list) for dataset in datasets]
    batches = [list(loader) for loader in loaders]
    assert [len(each) for each in batches] == [len(loader) for loader in loaders]
    assert [sum(map(len, each)) for each in batches] == [len(dataset) for dataset in datasets]
    counts = Counter(sample for each in batches for sample in flat(each))
    if tail.get("drop_last"):
        assert set(counts.values()) == {1}
        assert COUNT - len(counts) == COUNT % (4 * replicas)
    elif tail:
        assert counts == Counter(range(COUNT))
    else:
        assert set(counts) == set(range(COUNT))
        assert sum(counts.values()) - COUNT < replicas
    if not tail.get("even_batches", True):
        assert max(map(len, datasets)) - min(map(len, datasets)) <= 1
    else:
        assert len({tuple(map(len, each)) for each in batches}) == 1


# -- stop and resume --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_any_stops_and_resumes_hand_out_each_sample_once(manifest: S3Manifest, seed: int) -> None:
    chance = random.Random(seed)
    seen: list[int] = []
    state: dict[str, Any] | None = None
    while state is None or state["position"] < COUNT:
        replicas, batch_size = chance.choice([1, 2, 3, 5]), chance.choice([1, 2, 3, 7])
        datasets = ranks_of(manifest, replicas, batch_size=batch_size, even_batches=False)
        loaders = [S3DataLoader(dataset, collate_fn=list) for dataset in datasets]
        for loader in loaders if state is not None else []:
            assert state is not None
            loader.load_state_dict(state)
        seen += flat(steps(loaders, chance.randrange(8)))
        states = [loader.state_dict() for loader in loaders]
        state = pickle.loads(pickle.dumps(states[0]))
        if state["position"] < COUNT:
            assert all(each == state for each in states)
    assert sorted(seen) == list(range(COUNT))
    assert seen == list(dataset_of(manifest))


@pytest.mark.parametrize("workers", [(2, 3), (3, 0), (0, 2)])
def test_other_numbers_of_workers_resume_too(manifest: S3Manifest, workers: tuple[int, int]) -> None:
    expected = [list(dataset) for dataset in [dataset_of(manifest)] for _ in range(2)]
    with loading(dataset_of(manifest), num_workers=workers[0]) as loader:
        seen = flat(list(itertools.islice(loader, 9)))
        state = loader.state_dict()
    assert state["position"] == len(seen) == 36
    with loading(
        dataset_of(manifest, batch_size=5), num_workers=workers[1], persistent_workers=workers[1] > 0
    ) as loader:
        loader.load_state_dict(state)
        assert loader.state_dict() == {**state, "batch_size": 5}
        assert seen + flat(list(loader)) == expected[0]
        assert flat(list(loader)) == expected[1]


def test_the_state_of_an_ended_epoch_begins_the_next(manifest: S3Manifest) -> None:
    dataset = dataset_of(manifest)
    expected = [list(dataset), list(dataset)]
    for take in (26, None):  # the last batch was handed out; and the loader was asked for another
        loader = S3DataLoader(dataset_of(manifest), collate_fn=list)
        batches = iter(loader)
        assert flat(list(itertools.islice(batches, take))) == expected[0]
        state = loader.state_dict()
        assert (state["epoch"], state["position"]) == (0, COUNT)
        other = S3DataLoader(dataset_of(manifest), collate_fn=list)
        other.load_state_dict(state)
        assert other.dataset.epoch == 1
        assert flat(list(other)) == expected[1]


def test_drop_last_ends_an_epoch_with_its_last_whole_batch(manifest: S3Manifest) -> None:
    loader = S3DataLoader(dataset_of(manifest, drop_last=True), collate_fn=list)
    assert len(list(itertools.islice(loader, 25))) == 25
    assert loader.state_dict()["position"] == COUNT


def test_a_dataset_alone_counts_its_returned_samples(manifest: S3Manifest) -> None:
    expected = list(dataset_of(manifest))
    dataset = dataset_of(manifest)
    samples = iter(dataset)
    seen = [next(samples) for _ in range(10)]
    other = dataset_of(manifest)
    other.load_state_dict(dataset.state_dict())
    assert seen + list(other) == expected


def test_a_plain_loader_needs_the_number_of_batches(manifest: S3Manifest) -> None:
    expected = list(dataset_of(manifest))
    dataset = dataset_of(manifest)
    assert dataset.state_dict()["position"] == 0
    loader: DataLoader[Any] = DataLoader(dataset, batch_size=4, num_workers=2, collate_fn=list)
    seen = flat(list(itertools.islice(loader, 3)))
    with pytest.raises(S3ConfigurationError, match="only the DataLoader knows"):
        dataset.state_dict()
    state = dataset.state_dict(batches=3)
    assert state["position"] == 12
    dataset.load_state_dict(state)
    assert seen + flat(list(loader)) == expected


def test_resuming_lists_nothing_and_reads_only_ahead(
    manifest: S3Manifest, s3_server: S3Server, proxy: RecordingProxy
) -> None:
    loader = S3DataLoader(dataset_of(manifest), collate_fn=list)
    seen = flat(list(itertools.islice(loader, 20)))
    stored = f"s3://streaming/manifests/{random.getrandbits(64)}"
    manifest.save(stored)
    loaded = S3Manifest.load(stored, **options(s3_server, proxy.endpoint))
    other = S3DataLoader(dataset_of(loaded, look_ahead=4), collate_fn=list)
    other.load_state_dict(loader.state_dict())
    batches = iter(other)
    seen += next(batches)
    assert {each.method for each in proxy.exchanges} == {"GET"}
    assert not any(each.query for each in proxy.exchanges)
    assert len(proxy.of("GET")) <= 1 + 4 + 4
    assert sorted(seen + flat(list(batches))) == list(range(COUNT))


def test_keys_of_a_step_are_those_that_were_handed_out(manifest: S3Manifest, proxy: RecordingProxy) -> None:
    datasets = ranks_of(manifest, 3)
    taken = steps([S3DataLoader(dataset, collate_fn=list) for dataset in datasets])
    for step, samples in enumerate(taken):
        assert [int(key[-4:]) for key in datasets[1].keys_of(step)] == samples
        assert [int(key[-4:]) for key in datasets[1].keys_of(step, rank=0)] == samples[: len(samples) // 3]
    with pytest.raises(IndexError, match="no step 9"):
        datasets[0].keys_of(9)
    resumed = dataset_of(manifest, num_replicas=3, rank=0)
    resumed.load_state_dict(datasets[0].state_dict(batches=2))
    assert resumed.keys_of(4) == datasets[0].keys_of(4, 0)
    assert proxy.exchanges == []


# -- versions and errors ----------------------------------------------------------------------------------------------


def overwritten(server: S3Server, bucket: str, condition: bool) -> S3StreamingDataset:
    uri = numbered(server, bucket, 5)
    manifest = S3Manifest.from_prefix(uri, **options(server))
    stream = manifest._client.put_object(bucket, "data/0003")
    stream.write(b"9")
    stream.close()
    return dataset_of(manifest, batch_size=1, shuffle=False)


def test_an_overwritten_object_is_an_error_before_its_bytes(s3_server: S3Server, bucket: str) -> None:
    """rclone ignores ``If-Match``. The new version has the same size."""
    read: list[str] = []

    def note(reader: S3Reader) -> int:
        value = number(reader)
        read.append(reader.key)
        return value

    dataset = overwritten(s3_server, bucket, False)
    samples = iter(dataset_of(dataset.manifest, shuffle=False, transform=note))
    assert [next(samples) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(S3ObjectChangedError, match=rf"overwritten after it was listed: s3://{bucket}/data/0003"):
        next(samples)
    assert next(samples) == 4
    assert read == [f"data/000{i}" for i in (0, 1, 2, 4)]


def test_a_deleted_object_is_not_found(s3_server: S3Server, bucket: str) -> None:
    manifest = S3Manifest.from_prefix(numbered(s3_server, bucket, 5), **options(s3_server))
    manifest._client.delete_object(bucket, "data/0003")
    samples = iter(dataset_of(manifest, shuffle=False))
    assert [next(samples) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(S3NotFoundError, match="data/0003"):
        next(samples)
    assert list(samples) == [4]


def fail_at_13(reader: S3Reader) -> int:
    value = number(reader)
    if value == 13:
        raise ValueError("unlucky")
    return value


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_costs_its_batch_and_no_other(manifest: S3Manifest, workers: int) -> None:
    with loading(dataset_of(manifest), num_workers=workers) as loader:
        expected = list(loader)
    bad = next(i for i, batch in enumerate(expected) if 13 in batch)
    with loading(dataset_of(manifest, transform=fail_at_13), num_workers=workers) as loader:
        batches = iter(loader)
        assert [next(batches) for _ in range(bad)] == expected[:bad]
        with pytest.raises(ValueError, match="unlucky"):
            next(batches)
        assert loader.state_dict()["position"] == 4 * bad  # resumed now, the batch is made again
        assert list(batches) == expected[bad + 1 :]
        assert loader.state_dict()["position"] == COUNT


def test_states_of_something_else_are_refused(manifest: S3Manifest) -> None:
    state = dataset_of(manifest).state_dict()
    other = manifest.filter(lambda info: info.size > 1)
    for changed in (dataset_of(other), dataset_of(manifest, seed=8), dataset_of(manifest, shuffle=False)):
        with pytest.raises(S3ConfigurationError, match="the state was saved with"):
            changed.load_state_dict(state)


def test_a_second_iterator_ends_the_first(manifest: S3Manifest) -> None:
    loader = S3DataLoader(dataset_of(manifest), collate_fn=list)
    first = iter(loader)
    next(first)
    second = iter(loader)
    assert len(next(second)) == 4
    with pytest.raises(S3ConfigurationError, match="another pass over this dataset"):
        next(first)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"batch_size": 2.0},
        {"batch_size": True},
        {"seed": -1},
        {"seed": 2**64},
        {"look_ahead": -1},
        {"num_replicas": 2},
        {"rank": 0},
        {"num_replicas": 2, "rank": 2},
        {"num_replicas": 2, "rank": -1},
    ],
)
def test_impossible_arguments_are_refused(manifest: S3Manifest, wrong: Options) -> None:
    with pytest.raises(S3ConfigurationError):
        dataset_of(manifest, **wrong)


def test_a_loader_refuses_what_the_dataset_decides(manifest: S3Manifest) -> None:
    dataset = dataset_of(manifest)
    for wrong in ({"batch_size": 3}, {"shuffle": True}, {"drop_last": True}, {"sampler": [1]}):
        with pytest.raises(S3ConfigurationError):
            S3DataLoader(dataset, **wrong)
    assert S3DataLoader(dataset, batch_size=4, shuffle=False).batch_size == 4
    with pytest.raises(TypeError, match="loads an S3StreamingDataset"):
        S3DataLoader([1, 2])  # type: ignore[arg-type]


def test_a_loader_that_keeps_no_order_has_no_state(manifest: S3Manifest) -> None:
    with pytest.raises(S3ConfigurationError, match="in_order"):
        S3DataLoader(dataset_of(manifest), in_order=False).state_dict()


def test_a_prefix_is_listed_once(s3_server: S3Server, manifest: S3Manifest, proxy: RecordingProxy) -> None:
    where = options(s3_server, proxy.endpoint)
    dataset = S3StreamingDataset("s3://streaming/data/", **where, transform=number, batch_size=4, seed=7)
    assert len(proxy.exchanges) == 1
    assert list(dataset) == list(dataset_of(manifest))
    assert dataset.manifest.fingerprint == manifest.fingerprint


def test_a_small_state_that_checkpoints_take(manifest: S3Manifest, tmp_path: Any) -> None:
    loader = S3DataLoader(dataset_of(manifest), collate_fn=list)
    next(iter(loader))
    torch.save(loader.state_dict(), tmp_path / "state")
    assert torch.load(tmp_path / "state", weights_only=True) == loader.state_dict()
    assert len(pickle.dumps(loader.state_dict())) <= 512


def test_setting_the_epoch_that_is_resumed_keeps_the_place(manifest: S3Manifest) -> None:
    whole = dataset_of(manifest)
    whole.set_epoch(2)
    loader = S3DataLoader(dataset_of(manifest), collate_fn=list)
    loader.load_state_dict({**loader.state_dict(), "epoch": 2, "position": 8})
    loader.dataset.set_epoch(2)
    second = list(whole)
    assert [sample for batch in loader for sample in batch] == second[8:]
    loader.dataset.set_epoch(2)
    assert [sample for batch in loader for sample in batch] == second


def test_workers_end_when_the_iterator_is_dropped(manifest: S3Manifest) -> None:
    before = set(psutil.Process().children())
    loader = S3DataLoader(dataset_of(manifest), num_workers=2, collate_fn=list)
    batches = iter(loader)
    assert len(next(batches)) == 4
    workers = set(psutil.Process().children()) - before
    assert len(workers) == 2
    del batches
    assert not psutil.wait_procs(workers, timeout=20)[1]
    assert loader.state_dict()["position"] == 4
