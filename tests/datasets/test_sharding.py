"""Sharding: every sample goes to exactly one worker of one rank, whatever their numbers."""

from __future__ import annotations

from collections import Counter
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from s3torchconnector._sharding import Place, shard

COUNTS = st.integers(1, 9)
LENGTHS = st.integers(0, 200)


def shards_of(length: int, world_size: int, num_workers: int) -> list[list[list[int]]]:
    """The samples of each worker of each rank."""
    return [
        [
            list(shard(iter(range(length)), Place(rank, world_size, worker, num_workers)))
            for worker in range(num_workers)
        ]
        for rank in range(world_size)
    ]


@given(LENGTHS, COUNTS, COUNTS)
def test_every_sample_goes_to_exactly_one_place_in_order(length: int, world_size: int, num_workers: int) -> None:
    shards = list(chain.from_iterable(shards_of(length, world_size, num_workers)))
    assert Counter(chain.from_iterable(shards)) == Counter(range(length))
    assert all(samples == sorted(samples) for samples in shards)


@given(LENGTHS, COUNTS, COUNTS)
def test_ranks_come_first_then_workers(length: int, world_size: int, num_workers: int) -> None:
    for rank, workers in enumerate(shards_of(length, world_size, num_workers)):
        of_rank = list(range(length))[rank::world_size]
        assert workers == [of_rank[worker::num_workers] for worker in range(num_workers)]


@given(LENGTHS, COUNTS, COUNTS)
def test_ranks_and_their_workers_differ_by_at_most_one_sample(length: int, world_size: int, num_workers: int) -> None:
    shards = shards_of(length, world_size, num_workers)
    of_ranks = [sum(map(len, workers)) for workers in shards]
    assert max(of_ranks) - min(of_ranks) <= 1
    assert all(max(map(len, workers)) - min(map(len, workers)) <= 1 for workers in shards)


def test_without_ranks_or_workers_everything_is_yielded() -> None:
    assert list(shard("abc", Place())) == ["a", "b", "c"]
