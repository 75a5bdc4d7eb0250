"""The processes of a distributed job: how they exchange values and errors."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import torch.distributed as dist

from s3torchconnector._errors import S3Exception

_T = TypeVar("_T")


class Rank(NamedTuple):
    """One process of a distributed job, and how many there are."""

    rank: int
    size: int


def group_rank() -> Rank | None:
    """This process by its process group, if it has one."""
    if dist.is_available() and dist.is_initialized():
        return Rank(dist.get_rank(), dist.get_world_size())
    return None


def environment_rank() -> Rank:
    """What torchrun says, https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables."""
    return Rank(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def has_ranks() -> bool:
    """Whether this process is one of several ranks, by the process group as it is now."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_first() -> bool:
    """Whether this process is rank 0, or the only one."""
    return not has_ranks() or dist.get_rank() == 0


def gathered(value: _T) -> list[_T]:
    """The values of all ranks, in their order. All ranks must call this."""
    if not has_ranks():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def in_all(do: Callable[[], _T]) -> _T:
    """Return what ``do`` returns here. If it raises in one rank, raise its error in all. All ranks must call this.

    For what may fail before ranks act together: if one raised alone, the others would wait for it.
    """
    error: Exception | None = None
    try:
        value = do()
    except Exception as raised:
        error = raised
    errors = gathered(_portable(error))
    if error is not None:
        raise error
    for rank, other in enumerate(errors):
        if other is not None:
            raise other from RuntimeError(f"raised in rank {rank}")
    return value


def by_first(decide: Callable[[], _T]) -> _T:
    """Return, or raise, in all ranks what ``decide`` returns, or raises, in rank 0. All ranks must call this."""
    if not has_ranks():
        return decide()
    outcome: list[Any] = [None, None]
    error: Exception | None = None
    if is_first():
        try:
            outcome[0] = decide()
        except Exception as raised:
            error = raised
            outcome[1] = _portable(error)
    dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise error or outcome[1]
    return cast(_T, outcome[0])


def _portable(error: Exception | None) -> Exception | None:
    """The error in the form in which other ranks get it: if it cannot be pickled, its text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return S3Exception(f"{type(error).__name__}: {error}")
    return error


class BackgroundGroup:
    """A process group for saves in the background.

    In the program's own group, their messages would mix with those of the training, in another order in each rank.
    """

    def __init__(self) -> None:
        self._world: Any = None
        self._own: Any = None

    def get(self) -> Any:
        """The group, for the job as it is now. The first call makes it; all ranks must call this then."""
        if self._world is not dist.group.WORLD:
            self._own = dist.new_group(backend="gloo")
            self._world = dist.group.WORLD
        return self._own
