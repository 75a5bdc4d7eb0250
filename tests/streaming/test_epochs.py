"""Which epoch a pass is: a new one each pass, in all workers, however they are started."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from s3torchconnector._datasets import _epochs
from s3torchconnector._datasets._epochs import LAST_EPOCH, Epochs, Start
from s3torchconnector.errors import S3ConfigurationError


class Passes(IterableDataset[Any]):
    """Yields where its pass began, often enough for each worker to have some."""

    def __init__(self) -> None:
        self.epochs = Epochs()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        start = self.epochs.begin()
        for _ in range(4):
            yield start


def passes(loader: DataLoader[Any], count: int) -> list[set[Start]]:
    return [{Start(*sample) for batch in loader for sample in batch} for _ in range(count)]


@pytest.mark.parametrize(
    ("method", "workers", "persistent"),
    [
        (None, 0, False),
        ("fork", 3, False),
        ("fork", 3, True),
        ("forkserver", 2, True),
    ],
)
@pytest.mark.usefixtures("s3_server")  # a fork server keeps the environment in which it began
def test_a_new_epoch_each_pass_without_a_call(method: str | None, workers: int, persistent: bool) -> None:
    dataset = Passes()
    loader: DataLoader[Any] = DataLoader(
        dataset, batch_size=2, num_workers=workers, persistent_workers=persistent, multiprocessing_context=method,
        collate_fn=list,
    )  # fmt: skip
    assert dataset.epochs.latest() == Start(0)
    assert passes(loader, 2) == [{Start(0)}, {Start(1)}]
    assert dataset.epochs.latest() == Start(1)
    dataset.epochs.set(Start(7, 12))
    assert dataset.epochs.latest() == Start(7, 12)
    assert passes(loader, 2) == [{Start(7, 12)}, {Start(8)}]


def test_seeding_torch_before_each_pass_repeats_no_epoch() -> None:
    loader: DataLoader[Any] = DataLoader(Passes(), num_workers=2, collate_fn=list)
    for epoch in range(3):
        torch.manual_seed(0)
        assert passes(loader, 1) == [{Start(epoch)}]


def test_leaving_a_pass_early_counts() -> None:
    loader: DataLoader[Any] = DataLoader(Passes(), num_workers=2, collate_fn=list)
    for epoch in range(5):
        assert next(iter(loader)) == [Start(epoch)]
    [last] = passes(loader, 1)
    assert last == {Start(5)}


def test_a_worker_that_missed_a_pass_joins_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three workers of one iterator; the second was ended in the pass before, ere it began."""
    epochs = Epochs()

    def begin(worker: int, tag: int) -> Start:
        monkeypatch.setattr(_epochs, "_worker", lambda: (worker, tag))
        return epochs.begin()

    assert [begin(1, 10), begin(2, 10), begin(3, 10)] == [Start(0)] * 3
    assert [begin(1, 20), begin(3, 20)] == [Start(1)] * 2
    for first in (2, 3, 1):
        tag = 30 + first
        rest = {1, 2, 3} - {first}
        assert len({begin(first, tag), *(begin(worker, tag) for worker in rest)}) == 1
    assert epochs.latest() == Start(4)


def test_the_main_process_and_workers_share_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    epochs = Epochs()
    epochs.set(Start(2))
    assert epochs.begin() == Start(2)
    monkeypatch.setattr(_epochs, "_worker", lambda: (1, 5))
    assert epochs.begin() == Start(3)
    monkeypatch.setattr(_epochs, "_worker", lambda: (0, 0))
    assert epochs.begin() == Start(4)


def test_a_copy_has_its_own_epochs() -> None:
    epochs = Epochs()
    epochs.set(Start(3, 5))
    copy = pickle.loads(pickle.dumps(epochs))
    assert copy.begin() == Start(3, 5)
    assert copy.begin() == Start(4)
    assert not epochs.has_begun()


@pytest.mark.parametrize("epoch", [-1, LAST_EPOCH + 1])
def test_an_epoch_is_a_number(epoch: int) -> None:
    with pytest.raises(S3ConfigurationError, match="an epoch is a number from 0"):
        Epochs().set(Start(epoch))


def test_any_slot_round_trips() -> None:
    for slot in (_epochs._Slot(1023, 2**26 - 1, LAST_EPOCH), _epochs._Slot(0, 0, 0), _epochs._Slot(0, 0, -1)):
        assert _epochs._Slot.unpacked(slot.packed()) == slot
        assert slot.packed() < 2**63
