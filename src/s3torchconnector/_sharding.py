"""Divides samples among the workers of all ranks. Pure.

Sample ``i`` goes to rank ``i % world_size``. The ``j``-th sample of a rank goes to its worker ``j % num_workers``. So
each sample goes to exactly one worker of one rank, and ranks differ by at most one sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple, TypeVar

_T = TypeVar("_T")


class Place(NamedTuple):
    """One DataLoader worker of one rank of a job."""

    rank: int = 0
    world_size: int = 1
    worker: int = 0
    num_workers: int = 1


def shard(samples: Iterable[_T], place: Place) -> Iterator[_T]:
    """The samples that go to ``place``, in order.

    >>> from s3torchconnector._sharding import Place, shard
    >>> list(shard("abcdefgh", Place(rank=1, world_size=2, worker=0, num_workers=2)))
    ['b', 'f']
    """
    first = place.rank + place.world_size * place.worker
    return islice(samples, first, None, place.world_size * place.num_workers)
