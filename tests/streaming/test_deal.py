"""The division of positions among ranks: exactly once, equal batches, and the same samples a step on any number of
ranks.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3torchconnector._datasets._deal import Deal, Tail

PRIMES = st.sampled_from([1, 2, 3, 5, 7, 11, 13, 31, 61, 97, 101, 127, 251, 509])
SAMPLES = st.one_of(PRIMES, st.integers(0, 300))
RANKS = st.integers(1, 8)
BATCH = st.integers(1, 9)
TAILS: tuple[Tail, ...] = ("drop", "even", "uneven")
NODES = st.sampled_from([1, 1, 2, 3, 4, 6])
DEALS = st.builds(Deal, SAMPLES, RANKS, BATCH, st.sampled_from(TAILS), st.just(0), NODES)


@st.composite
def begun(draw: st.DrawFn) -> Deal:
    deal = draw(DEALS)
    return replace(deal, start=draw(st.integers(0, deal.samples)))


def flat(ranges: list[range]) -> list[int]:
    return [position for each in ranges for position in each]


def by_rank(deal: Deal) -> list[list[list[int]]]:
    return [[flat(deal.positions(rank, batch)) for batch in range(deal.batches(rank))] for rank in range(deal.replicas)]


@given(begun())
def test_each_position_is_dealt_once(deal: Deal) -> None:
    ranks = by_rank(deal)
    counts = Counter(position for batches in ranks for batch in batches for position in batch)
    rest = range(deal.start, deal.samples)
    repeats = counts - Counter(rest)
    lost = Counter(rest) - counts
    left = len(rest) % deal.global_batch
    assert sum(lost.values()) == (left if deal.tail == "drop" else 0)
    assert sum(repeats.values()) == (-left % deal.replicas if deal.tail == "even" else 0)
    if deal.start == 0 and deal.samples >= deal.replicas:
        assert sorted(repeats) == list(range(sum(repeats.values())))  # the epoch's first, once more


@given(begun())
def test_ranks_get_equal_batches(deal: Deal) -> None:
    sizes = [[len(batch) for batch in batches] for batches in by_rank(deal)]
    assert [sum(each) for each in sizes] == [deal.samples_of(rank) for rank in range(deal.replicas)]
    if deal.tail == "uneven":
        assert max(map(sum, sizes)) - min(map(sum, sizes)) <= 1
        assert max(map(len, sizes)) - min(map(len, sizes)) <= 1
    else:
        assert all(each == sizes[0] for each in sizes)
    full = deal.full_batches
    assert all(size == deal.batch_size for each in sizes for size in each[:full])
    assert all(0 < size <= deal.batch_size for each in sizes for size in each[full:])


@given(begun())
def test_a_step_has_consecutive_positions(deal: Deal) -> None:
    ranks = by_rank(deal)
    for step in range(deal.full_batches):
        together = [position for batches in ranks for position in batches[step]]
        first = deal.start + step * deal.global_batch
        step_positions = range(first, first + deal.global_batch)
        assert together == sorted(step_positions, key=lambda position: position % deal.nodes)


@given(begun(), st.integers(1, 5))
def test_workers_make_the_batches_a_loader_asks_them_for(deal: Deal, workers: int) -> None:
    for rank, batches in enumerate(by_rank(deal)):
        shares = [list(map(flat, deal.of_worker(rank, worker, workers))) for worker in range(workers)]
        in_turns = [shares[i % workers][i // workers] for i in range(len(batches))]
        assert in_turns == batches
        assert sum(map(len, shares)) == len(batches)
        for worker, share in enumerate(shares):
            assert list(map(flat, deal.of_worker(rank, worker, workers, 1))) == share[1:]


@given(PRIMES, st.lists(st.tuples(RANKS, BATCH, st.integers(0, 40)), max_size=6), st.sampled_from(["drop", "uneven"]))
def test_stops_and_resumes_on_other_topologies_deal_once(
    samples: int, runs: list[tuple[int, int, int]], tail: Tail
) -> None:
    seen: Counter[int] = Counter()
    position = 0
    for replicas, batch_size, stop in [*runs, (3, 2, samples + 1)]:
        deal = Deal(samples, replicas, batch_size, tail, position)
        ranks = by_rank(deal)
        for batches in ranks:
            for batch in batches[:stop]:
                seen.update(batch)
        position = deal.position_after(stop)
        if position == samples:
            break
    assert position == samples
    if tail == "uneven":
        assert seen == Counter(range(samples))
    else:
        assert set(seen.values()) <= {1}


@given(begun(), st.integers(0, 50))
def test_the_position_after_some_batches(deal: Deal, batches: int) -> None:
    position = deal.position_after(batches)
    if batches >= deal.batches(0):
        assert position == deal.samples
    else:
        seen = {position for each in by_rank(deal) for batch in each[:batches] for position in batch}
        assert seen == set(range(deal.start, position))


def test_padding_wraps_as_often_as_it_must() -> None:
    assert by_rank(Deal(3, 7, 2, "even")) == [[[0]], [[1]], [[2]], [[0]], [[1]], [[2]], [[0]]]
    assert by_rank(Deal(0, 2, 2, "even")) == [[], []]


def test_no_batch_outside() -> None:
    for batch in (-1, 2):
        with pytest.raises(IndexError, match="rank 1 has 2"):
            Deal(5, 2, 2, "even").positions(1, batch)
