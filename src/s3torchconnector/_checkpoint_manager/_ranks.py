"""The processes of a distributed job: what one decides for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch.distributed as dist

_T = TypeVar("_T")


def has_ranks() -> bool:
    """Whether this process is one of several of a job, by the process group as it is now."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_first() -> bool:
    """Whether this process is rank 0, or the only one."""
    return not has_ranks() or dist.get_rank() == 0


def by_first(decide: Callable[[], _T]) -> _T:
    """What ``decide`` returns, or raises, in rank 0: in all ranks, which must all call this."""
    if not has_ranks():
        return decide()
    outcome: list[Any] = [None, None]
    if is_first():
        try:
            outcome[0] = decide()
        except Exception as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    return cast(_T, outcome[0])
