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


def gathered(value: _T) -> list[_T]:
    """The values of all ranks, which must all call this, in their order."""
    if not has_ranks():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


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


class BackgroundGroup:
    """A process group for what ranks do on a thread in the background.

    On the program's own, their messages would mix with those of the training, in another order in each rank.
    """

    def __init__(self) -> None:
        self._world: Any = None
        self._own: Any = None

    def get(self) -> Any:
        """The group, of the job as it is now; made the first time, when all ranks must call this."""
        if self._world is not dist.group.WORLD:
            self._own = dist.new_group(backend="gloo")
            self._world = dist.group.WORLD
        return self._own
