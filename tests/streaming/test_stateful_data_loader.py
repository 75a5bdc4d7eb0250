"""torchdata's StatefulDataLoader: exact on the same topology, and its state resumes on any other."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import pytest
from torch.utils.data._utils import worker
from torchdata.stateful_dataloader import StatefulDataLoader

from s3torchconnector.errors import S3ConfigurationError
from s3torchconnector.s3dataloader import S3DataLoader
from s3torchconnector.s3manifest import S3Manifest
from s3torchconnector.s3streaming_dataset import S3StreamingDataset
from s3torchconnector.testing import S3Server
from tests.streaming.support import number, numbered, options

COUNT = 53


@pytest.fixture(scope="module")
def manifest(s3_server: S3Server) -> S3Manifest:
    s3_server.make_bucket("stateful")
    return S3Manifest.from_prefix(numbered(s3_server, "stateful", COUNT), **options(s3_server))


def dataset_of(manifest: S3Manifest, **changes: Any) -> S3StreamingDataset:
    return S3StreamingDataset(manifest, **{"transform": number, "batch_size": 4, "seed": 7, **changes})


def loader_of(dataset: S3StreamingDataset, workers: int, every: int = 1, persistent: bool = False) -> Any:
    return StatefulDataLoader(
        dataset, batch_size=dataset.batch_size, num_workers=workers, collate_fn=list, snapshot_every_n_steps=every,
        persistent_workers=persistent,
    )  # fmt: skip


def flat(batches: Any) -> list[int]:
    return [sample for batch in batches for sample in batch]


@pytest.fixture(scope="module")
def epochs(manifest: S3Manifest) -> list[list[int]]:
    dataset = dataset_of(manifest)
    return [list(dataset) for _ in range(3)]


# Workers start with each pass that is not persistent, which is what the tests here take their time for.
_SAME = [(0, 1, False), (2, 1, False), (2, 3, True)]


@pytest.mark.parametrize(
    ("workers", "every", "persistent", "taken"),
    [*((*topology, taken) for topology in _SAME for taken in (0, 5, 14)), (3, 4, True, 5)],
)
def test_the_same_topology_goes_on_exactly(
    manifest: S3Manifest, epochs: list[list[int]], workers: int, every: int, persistent: bool, taken: int
) -> None:
    """14 batches are all of an epoch; then its end has not been seen yet."""
    loader = loader_of(dataset_of(manifest), workers, every, persistent)
    batches = iter(loader)
    seen = flat(itertools.islice(batches, taken))
    state = pickle.loads(pickle.dumps(loader.state_dict()))
    other = loader_of(dataset_of(manifest), workers, every, persistent)
    other.load_state_dict(state)
    assert seen + flat(other) == epochs[0]
    assert flat(other) == epochs[1]
    assert flat(other) == epochs[2]


@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_the_end_of_an_epoch_is_followed_by_the_next(
    manifest: S3Manifest, epochs: list[list[int]], workers: int, persistent: bool
) -> None:
    loader = loader_of(dataset_of(manifest), workers, persistent=persistent)
    assert flat(loader) == epochs[0]
    other = loader_of(dataset_of(manifest), workers, persistent=persistent)
    other.load_state_dict(loader.state_dict())
    assert flat(other) == epochs[1]
    assert flat(other) == epochs[2]


@pytest.mark.parametrize(("workers", "every"), [(0, 1), (2, 1), (3, 4)])
@pytest.mark.parametrize("taken", [0, 1, 7, 14, None])
def test_its_state_resumes_on_any_other_topology(
    manifest: S3Manifest, epochs: list[list[int]], workers: int, every: int, taken: int | None
) -> None:
    loader = loader_of(dataset_of(manifest), workers, every)
    seen = flat(itertools.islice(loader, taken))
    state = loader.state_dict()
    rest = epochs[0][len(seen) :] or epochs[1]
    dataset = dataset_of(manifest, batch_size=3)
    dataset.load_state_dict(state)
    assert flat(S3DataLoader(dataset, collate_fn=list)) == rest
    if not workers:  # nothing of the state that is left depends on how many there were
        dataset.load_state_dict(state)
        assert flat(loader_of(dataset, 2)) == rest


def test_a_worker_refuses_another_topology_with_advice(manifest: S3Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error reaches the main process; the workers of a loader that fails so take seconds to end, so none run."""
    loader = loader_of(dataset_of(manifest), 2)
    next(iter(loader))
    state = loader.state_dict()["_snapshot"]["_worker_snapshots"]["worker_0"]["dataset_state"]
    monkeypatch.setattr(worker, "_worker_info", worker.WorkerInfo(id=0, num_workers=2, seed=1, dataset=None))
    for wrong in ({"batch_size": 5}, {"num_replicas": 2, "rank": 0}):
        with pytest.raises(
            S3ConfigurationError, match=r"state was saved with.*dataset\.load_state_dict\(loader_state\)"
        ):
            dataset_of(manifest, **wrong).load_state_dict(state)
    dataset_of(manifest).load_state_dict(state)
    with pytest.raises(S3ConfigurationError, match="that no worker has saved"):
        dataset_of(manifest).load_state_dict({k: v for k, v in state.items() if k != "next"})


def test_ranks_of_it_resume_on_another_number(manifest: S3Manifest, epochs: list[list[int]]) -> None:
    datasets = [dataset_of(manifest, num_replicas=2, rank=rank, even_batches=False) for rank in range(2)]
    loaders = [loader_of(dataset, 2) for dataset in datasets]
    seen = [flat(itertools.islice(loader, 3)) for loader in loaders]
    states = [loader.state_dict() for loader in loaders]
    for state in states:
        dataset = dataset_of(manifest)
        dataset.load_state_dict(state)
        assert sorted(flat(seen) + list(dataset)) == sorted(epochs[0])
