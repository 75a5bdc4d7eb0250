"""The samples of a step, dealt to ranks so that each gets about as many bytes. Pure.

All ranks of a step wait for the slowest. So the samples of one global batch are dealt by size: the largest first, each
to the rank that has the fewest bytes so far and still lacks samples. All get as many samples as without, and together
they get the same ones, so that the gradient of the step is unchanged.

Ranks are dealt to in groups of up to 64: each worker deals the samples of its rank's whole group, which takes about a
microsecond for each of them, and larger groups would gain little.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heapreplace

_GROUP = 64  # ranks


def group_of(rank: int, ranks: int) -> range:
    """The ranks to which samples are dealt together with a rank: groups differ by one rank at most."""
    groups = -(-ranks // _GROUP)
    group = rank * groups // ranks
    return range(-(-group * ranks // groups), -(-(group + 1) * ranks // groups))


def shares(sizes: Sequence[int], counts: Sequence[int]) -> list[list[int]]:
    """Deal samples.

    Args:
        sizes: of the samples, in bytes.
        counts: how many samples each rank gets, as many as there are together.

    Returns:
        For each rank the numbers of its samples, ascending.
    """
    dealt: list[list[int]] = [[] for _ in counts]
    waiting = [(0, rank) for rank, count in enumerate(counts) if count]  # by bytes so far
    heapify(waiting)
    for sample in sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True):
        total, rank = waiting[0]
        dealt[rank].append(sample)
        if len(dealt[rank]) < counts[rank]:
            heapreplace(waiting, (total + sizes[sample], rank))
        else:
            heappop(waiting)
    for each in dealt:
        each.sort()
    return dealt
