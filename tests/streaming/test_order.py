"""The order of an epoch: a bijection, equal in both implementations, and another one for each seed and epoch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s3torchconnector._datasets import _order
from s3torchconnector._datasets._order import Order, mix
from tests.servers.warm import WarmPython

SEEDS = st.integers(0, 2**64 - 1)
EPOCHS = st.integers(0, 10_000)
FEW = st.integers(1, 300)
MANY = st.integers(16_385, 2**40)


def all_of(order: Order) -> list[int]:
    result: list[int] = order.samples_at(torch.arange(order.samples)).tolist()
    return result


@given(SEEDS, EPOCHS, FEW)
def test_few_samples_come_once_each_and_back(seed: int, epoch: int, samples: int) -> None:
    order = Order(seed, epoch, samples)
    found = [order.sample_at(position) for position in range(samples)]
    assert sorted(found) == list(range(samples))
    assert found == all_of(order)
    assert [order.position_of(sample) for sample in found] == list(range(samples))


@settings(max_examples=5)
@given(SEEDS, EPOCHS, st.sampled_from([16_385, 16_411, 16_641]))
def test_many_samples_come_once_each(seed: int, epoch: int, samples: int) -> None:
    order = Order(seed, epoch, samples)
    assert torch.equal(order.samples_at(torch.arange(samples)).sort().values, torch.arange(samples))


@given(SEEDS, EPOCHS, MANY, st.data())
def test_the_scalar_and_the_tensors_agree_and_invert(seed: int, epoch: int, samples: int, data: st.DataObject) -> None:
    order = Order(seed, epoch, samples)
    positions = data.draw(st.lists(st.integers(0, samples - 1), min_size=1, max_size=40))
    found = [order.sample_at(position) for position in positions]
    assert all(0 <= sample < samples for sample in found)
    assert order.samples_at(torch.tensor(positions)).tolist() == found
    assert [order.position_of(sample) for sample in found] == positions


@given(st.integers(0, 2**64 - 1))
def test_mixing_agrees_with_tensors(number: int) -> None:
    assert _order._mix_all(torch.tensor([_order._signed(number)])).item() == _order._signed(mix(number))


@settings(max_examples=5)
@given(SEEDS, EPOCHS, st.sampled_from([5_003, 20_011]))
def test_seeds_and_epochs_are_unrelated(seed: int, epoch: int, samples: int) -> None:
    """Two permutations drawn at random agree at one position on average; twelve has odds of one in 10**9."""
    here = Order(seed, epoch, samples).samples_at(torch.arange(samples))
    for other in (Order((seed + 1) % 2**64, epoch, samples), Order(seed, epoch + 1, samples)):
        assert int((other.samples_at(torch.arange(samples)) == here).sum()) < 12
    following = Order((seed + 1) % 2**64, epoch, samples)
    assert not torch.equal(following.samples_at(torch.arange(samples)), Order(seed, epoch + 1, samples).samples_at(
        torch.arange(samples)))  # fmt: skip


@pytest.mark.parametrize("samples", [1_009, 20_011])
def test_neighbours_are_scattered(samples: int) -> None:
    """The distance of the samples at neighbouring positions is on average a third of all, as at random."""
    found = Order(1, 2, samples).samples_at(torch.arange(samples)).double()
    assert float((found[1:] - found[:-1]).abs().mean() / samples) == pytest.approx(1 / 3, abs=0.03)
    halves = found[: samples // 2].mean() / samples
    assert float(halves) == pytest.approx(1 / 2, abs=0.05)


def test_every_position_gets_every_sample_equally_often() -> None:
    counts = torch.zeros(7, 7)
    for epoch in range(3_000):
        counts[torch.arange(7), Order(5, epoch, 7).samples_at(torch.arange(7))] += 1
    assert float(((counts - 3_000 / 7) ** 2 / (3_000 / 7)).sum()) < 80  # chi-square with 36 degrees of freedom


def test_without_shuffling_it_is_the_samples_own() -> None:
    order = Order(3, 1, 10, shuffle=False)
    assert all_of(order) == [order.sample_at(i) for i in range(10)] == [order.position_of(i) for i in range(10)]
    assert all_of(order) == list(range(10))


@pytest.mark.parametrize("samples", [0, 3, 70_000])
def test_no_position_outside(samples: int) -> None:
    order = Order(0, 0, samples)
    for number in (-1, samples):
        with pytest.raises(IndexError, match="out of range"):
            order.sample_at(number)
        with pytest.raises(IndexError, match="out of range"):
            order.position_of(number)
    assert order.samples_at(torch.empty(0, dtype=torch.int64)).tolist() == []


def test_saved_states_rely_on_these_numbers() -> None:
    """If this fails, the order needs another name: resumed jobs would repeat some samples and never see others."""
    assert _order.NAME == "feistel-1"
    few, many = Order(42, 3, 11), Order(42, 3, 12_811_670)
    assert [few.sample_at(i) for i in range(11)] == FIRST_OF_FEW
    assert [many.sample_at(i) for i in range(6)] == FIRST_OF_MANY


FIRST_OF_FEW = [2, 1, 8, 9, 7, 10, 4, 3, 0, 5, 6]
FIRST_OF_MANY = [8750715, 5965099, 869077, 11457958, 5493147, 10726095]


_PROGRAM = """
import psutil
import torch
from s3torchconnector._datasets._deal import Deal
from s3torchconnector._datasets._mixture import MixedOrder, Source, quotas
from s3torchconnector._datasets._order import Order
from s3torchconnector._datasets._plan import Plan

torch.set_num_threads(4)
before = psutil.Process().num_threads()
sources = [Source(samples, share, 1, True) for samples, share in zip([10**6, 5000, 3], quotas([3, 2, 1]))]
for order in (Order(1, 2, 10**6), Order(1, 2, 16_384), MixedOrder(sources, 1, 2, 10**6)):
    for sizes in (None, lambda numbers: numbers):
        plan = Plan(Deal(order.samples, 2, 4000, "even"), 1, order, sizes)
        samples = plan.samples()
        assert len([next(samples) for _ in range(200)]) == 200
assert psutil.Process().num_threads() == before, "operations of PyTorch have started threads"
"""


def test_no_order_starts_threads_of_pytorch(warm_python: WarmPython) -> None:
    """They would hang in a child that is forked later."""
    run = warm_python.run("-c", _PROGRAM)
    assert (run.returncode, run.stderr) == (0, "")
