"""The state that torchdata's StatefulDataLoader saves for a streaming dataset: one for each worker. Pure.

In a worker, a state also says which worker of how many, and its next batch. The states of all workers of a rank give
the number of batches that the loader has handed out, up to the loader's last snapshot, and so the position in the
epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from s3torchconnector._datasets._deal import Deal, Tail
from s3torchconnector._errors import S3ConfigurationError

_STEPS = "_steps_since_snapshot"
_FINISHED = "_iterator_finished"
_SAME = ("epoch", "position", "batch_size", "num_replicas", "workers")


def of_worker(state: Mapping[str, Any], worker: int, workers: int, next_batch: int) -> dict[str, Any]:
    """A state with what a worker adds to it."""
    return {**state, "worker": worker, "workers": workers, "next": next_batch}


def is_of_worker(state: Any) -> bool:
    """Whether it is what ``of_worker`` returns."""
    return isinstance(state, Mapping) and {"manifest", "epoch", "worker", "workers", "next"} <= state.keys()


def check_topology(state: Mapping[str, Any], batch_size: int, num_replicas: int, worker: int, workers: int) -> None:
    """Compare a worker's state with the worker that it is given to.

    Raises:
        S3ConfigurationError: it was saved by another number of ranks or workers, or with another batch size.
    """
    if not is_of_worker(state):
        raise S3ConfigurationError("a worker was given a state that no worker has saved")
    here = {"batch_size": batch_size, "num_replicas": num_replicas, "workers": workers, "worker": worker}
    for name, value in here.items():
        if state.get(name) != value:
            raise S3ConfigurationError(
                f"the state was saved with {name}={state.get(name)!r}, and now {name} is {value!r}. To go on with "
                "other ranks, workers or batches, call dataset.load_state_dict(loader_state) in the main process with "
                "the whole state of the StatefulDataLoader, and make a new loader that no state is loaded into"
            )


def is_of_loader(state: Any) -> bool:
    """Whether it is the state of a whole loader."""
    return isinstance(state, Mapping) and "version" not in state and next(_states(state), None) is not None


def position_of_loader(state: Mapping[str, Any], tail: Tail) -> dict[str, Any]:
    """The dataset's state, equal on all ranks, from the state of one rank's loader.

    Raises:
        S3ConfigurationError: its parts do not fit together.
    """
    states = list(_states(state))
    first = dict(states[0])
    if not is_of_worker(first):  # the loader has no workers
        return first
    if any(each.get(name) != first[name] for each in states for name in _SAME):
        raise S3ConfigurationError("the workers' states in this loader state are of different passes: it is damaged")
    if len({each["worker"] for each in states}) != first["workers"]:
        raise S3ConfigurationError(
            f"this loader state is of {first['workers']} workers, but has the states of {len(states)}"
        )
    batches = sum(each["next"] for each in states) + sum(_values(state, _STEPS))
    deal = Deal(first["samples"], first["num_replicas"], first["batch_size"], tail, first["position"])
    position = first["samples"] if any(_values(state, _FINISHED)) else deal.position_after(batches)
    plain = {name: value for name, value in first.items() if name not in ("worker", "workers", "next")}
    return {**plain, "position": position}


def _states(state: Any) -> Iterator[Mapping[str, Any]]:
    """The states of our dataset, wherever the loader keeps them."""
    for each in _mappings(state):
        if {"manifest", "epoch", "position"} <= each.keys():
            yield each


def _values(state: Any, name: str) -> Iterator[int]:
    return (each[name] for each in _mappings(state) if name in each)


def _mappings(state: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(state, Mapping):
        yield state
        for value in state.values():
            yield from _mappings(value)
    elif isinstance(state, Sequence) and not isinstance(state, str | bytes):
        for value in state:
            yield from _mappings(value)
