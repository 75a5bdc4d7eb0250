"""``balance="bytes"``: the same samples a step, as many for each rank, and about as many bytes."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3torchconnector._datasets._balance import group_of, shares
from s3torchconnector._datasets._deal import Deal, Tail
from s3torchconnector._datasets._order import Order
from s3torchconnector._datasets._plan import Plan
from s3torchconnector.errors import S3ConfigurationError
from s3torchconnector.s3dataloader import S3DataLoader
from s3torchconnector.s3manifest import S3Manifest
from s3torchconnector.s3streaming_dataset import S3StreamingDataset
from s3torchconnector.testing import S3Server
from tests.streaming.support import fill, loading, number, options

COUNT = 101
TAILS: tuple[Tail, ...] = ("drop", "even", "uneven")


@given(st.lists(st.tuples(st.integers(0, 4), st.lists(st.integers(0, 2**40), min_size=4, max_size=4)), max_size=9))
def test_shares_have_the_counts_that_were_asked_for(ranks: list[tuple[int, list[int]]]) -> None:
    counts = [count for count, _ in ranks]
    sizes = [size for count, some in ranks for size in some[:count]]
    dealt = shares(sizes, counts)
    assert [len(each) for each in dealt] == counts
    assert sorted(itertools.chain(*dealt)) == list(range(len(sizes)))
    assert all(each == sorted(each) for each in dealt)
    assert dealt == shares(sizes, counts)


@given(st.integers(1, 3000))
def test_groups_are_nearly_equal_and_of_neighbours(ranks: int) -> None:
    groups = [group_of(rank, ranks) for rank in range(ranks)]
    assert all(rank in group for rank, group in enumerate(groups))
    distinct = sorted(set(groups), key=lambda group: group.start)
    assert [rank for group in distinct for rank in group] == list(range(ranks))
    lengths = {len(group) for group in distinct}
    assert max(lengths) <= 64
    assert max(lengths) - min(lengths) <= 1


def plans(deal: Deal, seed: int, sizes: Sequence[int] | None) -> list[Plan]:
    order = Order(seed, 0, deal.samples)
    told = None if sizes is None else lambda numbers: [sizes[number] for number in numbers]
    return [Plan(deal, rank, order, told) for rank in range(deal.replicas)]


def batches_of(plan: Plan, workers: int) -> list[list[int]]:
    """The batches of a rank, as a loader asks its workers for them."""
    shares = [plan.samples(worker, workers) for worker in range(workers)]
    sizes = [len(plan.positions(batch)) for batch in range(plan.deal.batches(plan.rank))]
    return [list(itertools.islice(shares[batch % workers], size)) for batch, size in enumerate(sizes)]


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 150), st.sampled_from([1, 2, 3, 8, 70, 130]), st.integers(1, 5), st.sampled_from(TAILS),
    st.integers(0, 150), st.integers(1, 3),
)  # fmt: skip
def test_each_step_has_the_samples_that_it_has_without(
    samples: int, ranks: int, batch_size: int, tail: Tail, start: int, workers: int
) -> None:
    deal = Deal(samples, ranks, batch_size, tail, min(start, samples))
    sizes = [random.Random(number).randrange(1000) for number in range(samples)]
    plain = [batches_of(plan, 1) for plan in plans(deal, 7, None)]
    balanced = [batches_of(plan, workers) for plan in plans(deal, 7, sizes)]
    assert [list(map(len, batches)) for batches in balanced] == [list(map(len, batches)) for batches in plain]
    for step, (mine, theirs) in enumerate(
        zip(itertools.zip_longest(*balanced, fillvalue=[]), itertools.zip_longest(*plain, fillvalue=[]), strict=True)
    ):
        assert Counter(itertools.chain(*mine)) == Counter(itertools.chain(*theirs))
        if deal.start == 0:
            plan = plans(deal, 7, sizes)[0]
            assert plan.samples_of_step(step) == list(itertools.chain(*mine))
            assert plan.samples_of_step(step, 0) == list(mine[0])


@pytest.mark.parametrize(("ranks", "most"), [(8, 1.05), (64, 1.1), (200, 1.15)])
def test_the_largest_rank_has_little_more_than_the_mean(ranks: int, most: float) -> None:
    """For log-normal sizes (sigma = 1), and batches of 32."""
    chance = random.Random(1)
    sizes = [int(1e5 * chance.lognormvariate(0, 1)) for _ in range(ranks * 32 * 3)]
    deal = Deal(len(sizes), ranks, 32, "drop")
    ratios: dict[bool, list[float]] = {}
    for balanced in (False, True):
        plan = plans(deal, 3, sizes if balanced else None)[0]
        for step in range(3):
            samples = plan.samples_of_step(step)
            totals = [sum(sizes[sample] for sample in samples[i : i + 32]) for i in range(0, len(samples), 32)]
            mean = sum(totals) / ranks
            # A sample that is larger than the mean holds its rank up however samples are dealt.
            bound = max(1.0, max(sizes[sample] for sample in samples) / mean)
            ratios.setdefault(balanced, []).append(max(totals) / mean / bound)
    assert sum(ratios[True]) / 3 < most
    assert sum(ratios[False]) / 3 > 1.3


# -- on a server ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def manifest(s3_server: S3Server) -> S3Manifest:
    """Objects that hold their numbers, with up to 2,000 blanks."""
    s3_server.make_bucket("balance")
    chance = random.Random(0)
    fill(s3_server, "balance", {f"data/{i:04}": f"{i:<{chance.randrange(4, 2000)}}".encode() for i in range(COUNT)})
    return S3Manifest.from_prefix("s3://balance/data/", **options(s3_server))


def ranks_of(manifest: S3Manifest, replicas: int, **changes: Any) -> list[S3StreamingDataset]:
    defaults = {"transform": number, "batch_size": 4, "seed": 7, "balance": "bytes", "even_batches": False}
    return [
        S3StreamingDataset(manifest, num_replicas=replicas, rank=rank, **{**defaults, **changes})
        for rank in range(replicas)
    ]


def test_any_stops_and_resumes_hand_out_each_sample_once(manifest: S3Manifest) -> None:
    seen: list[int] = []
    state: dict[str, Any] | None = None
    for replicas, batch_size, balance, stop in (
        (3, 4, "bytes", 3),
        (2, 5, None, 2),
        (5, 1, "bytes", 4),
        (2, 7, "bytes", 99),
    ):
        datasets = ranks_of(manifest, replicas, batch_size=batch_size, balance=balance)
        loaders = [S3DataLoader(dataset, collate_fn=list) for dataset in datasets]
        for loader in loaders if state is not None else []:
            assert state is not None
            loader.load_state_dict(state)
        seen += [sample for loader in loaders for batch in itertools.islice(loader, stop) for sample in batch]
        states = [loader.state_dict() for loader in loaders]
        state = states[0]
        assert state["position"] == COUNT or all(each == state for each in states)
    assert sorted(seen) == list(range(COUNT))


def test_workers_and_keys_agree_with_what_was_handed_out(manifest: S3Manifest) -> None:
    datasets = ranks_of(manifest, 2)
    with loading(datasets[0], num_workers=2) as first, loading(datasets[1], num_workers=3) as second:
        steps = list(zip(first, second, strict=True))
    for step, batches in enumerate(steps):
        assert [int(key[-4:]) for key in datasets[0].keys_of(step)] == [*batches[0], *batches[1]]
    sizes = {int(item.key[-4:]): item.object_info.size for item in manifest if item.object_info}
    for one, other in steps[:-1]:
        totals = [sum(map(sizes.__getitem__, batch)) for batch in (one, other)]
        assert max(totals) < 1.25 * sum(totals) / 2


def of_bad(sample: Any) -> int:
    value = number(sample)
    if value % 10 == 3:
        raise ValueError("bad")
    return value


def test_bad_samples_are_replaced_by_the_same_ones(manifest: S3Manifest) -> None:
    found = []
    for balance in ("bytes", None):
        loaders = [
            S3DataLoader(each, collate_fn=list)
            for each in ranks_of(manifest, 3, transform=of_bad, on_error="replace", balance=balance)
        ]
        found.append(sorted(sample for loader in loaders for batch in loader for sample in batch))
    assert found[0] == found[1]
    assert len(found[0]) == COUNT


def test_other_balances_are_refused(manifest: S3Manifest) -> None:
    with pytest.raises(S3ConfigurationError, match="balance must be None or 'bytes'"):
        ranks_of(manifest, 2, balance="samples")
