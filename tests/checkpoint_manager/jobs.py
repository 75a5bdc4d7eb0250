"""What the ranks do in the tests of the manager."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.planner import SavePlan

from s3torchconnector import S3CheckpointManager, S3Exception
from s3torchconnector.dcp import S3StorageWriter


def _state(rank: int, step: int) -> dict[str, Any]:
    return {f"of rank {rank}": torch.full((1000,), float(step)), "shared": torch.full((10,), float(step)), "step": step}


def save_and_load(rank: int, uri: str) -> None:
    manager = S3CheckpointManager(uri, "us-east-1", keep_last=2)
    assert manager.latest() is None
    manager.save(1, _state(rank, 1))
    manager.save(2, _state(rank, 2))
    state = _state(rank, 3)
    future = manager.save_async(3, state)
    state["shared"] += 1
    future.result(timeout=60)
    dist.barrier()  # rank 0 has committed
    assert manager.latest() == 3
    loaded = manager.load(state_dict=_state(rank, 0))
    assert torch.equal(loaded[f"of rank {rank}"], torch.full((1000,), 3.0))
    assert (loaded["shared"].unique().item(), loaded["step"]) == (3, 3)
    with pytest.raises(FileNotFoundError):  # in every rank
        manager.load(1, state_dict=_state(rank, 0))


def save_while_training(rank: int, uri: str) -> None:
    """Rank 1 reaches each step of a save later than rank 0. Its messages must not be mistaken for the training's."""
    manager = S3CheckpointManager(uri, "us-east-1")
    go_on = threading.Event()
    plan = S3StorageWriter.prepare_local_plan

    def late(writer: S3StorageWriter, local: SavePlan) -> SavePlan:
        assert rank == 0 or go_on.wait(30)
        return plan(writer, local)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(S3StorageWriter, "prepare_local_plan", late)
        first = manager.save_async(1, _state(rank, 1))
        for number in range(20):
            total = torch.full((4,), float(number))
            dist.all_reduce(total)
            assert total.tolist() == [2.0 * number] * 4
        assert not first.done()
        threading.Timer(0.2, go_on.set).start()
        second = manager.save_async(2, _state(rank, 2))  # after the first has ended
        manager.save(3, _state(rank, 3))  # after the second has
    assert first.done()
    assert second.done()
    assert manager.latest() == 3
    manager.save_async(4, _state(rank, 4)).result(60)
    dist.barrier()
    for step in (1, 2, 3, 4):
        loaded = manager.load(step, state_dict=_state(rank, 0))
        assert (loaded["shared"].unique().item(), loaded["step"]) == (step, step)


def disagree(rank: int, uri: str) -> None:
    manager = S3CheckpointManager(uri, "us-east-1")
    for save in (manager.save, manager.save_async):
        with pytest.raises(ValueError, match=r"were given \[100, 101\]"):
            save(100 + rank, _state(rank, 1))
    assert manager.latest() is None


class Uncopied:
    """Something that `save` can store, but `save_async` cannot copy."""

    def __deepcopy__(self, _: dict[int, Any]) -> Uncopied:
        raise KeyError("cannot copy")


class Unasked:
    """A Stateful whose `state_dict` raises."""

    def state_dict(self) -> dict[str, Any]:
        raise KeyError("cannot tell")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See ``Stateful``."""


def be_refused(rank: int, uri: str) -> None:
    """Rank 1 passes something invalid: both ranks raise an error, and none waits for the other."""
    manager = S3CheckpointManager(uri, "us-east-1")
    for save in (manager.save, manager.save_async):
        with pytest.raises(ValueError, match="not -1"):
            save((5, -1)[rank], _state(rank, 5))
        with pytest.raises(TypeError, match=r"not 5\.0"):
            save((5, 5.0)[rank], _state(rank, 5))  # type: ignore[arg-type]
        with pytest.raises(KeyError, match="cannot tell"):
            save(5, {**_state(rank, 5), "odd": (0, Unasked())[rank]})
        with pytest.raises(AttributeError, match="items"):
            save(5, (_state(rank, 5), None)[rank])  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="cannot copy"):
        manager.save_async(5, {**_state(rank, 5), "odd": (0, Uncopied())[rank]})
    assert manager.latest() is None
    manager.save_async(6, _state(rank, 6)).result(60)
    dist.barrier()
    with pytest.raises(ValueError, match="pass the state_dict"):
        manager.load(6, state_dict=(_state(rank, 0), None)[rank])
    assert manager.load(6, state_dict=_state(rank, 0))["step"] == 6


class Unsent(Exception):
    """An error that can be pickled, but not unpickled."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} and {other}")


def fail_with_an_error_that_stays(rank: int, uri: str) -> None:
    manager = S3CheckpointManager(uri, "us-east-1")

    def refuse(*_: Any) -> None:
        raise Unsent("this", "that")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manager._store, "commit", refuse)
        with pytest.raises((Unsent, S3Exception)[rank], match="this and that"):
            manager.save(1, _state(rank, 1))
    manager.save(2, _state(rank, 2))


def lose_a_file(rank: int, uri: str) -> None:
    """A file of rank 1 is deleted before rank 0 commits."""
    manager = S3CheckpointManager(uri, "us-east-1")
    commit = manager._store.commit

    def commit_what_is_left(step: int, *arguments: Any) -> None:
        lost = next(info.key for info in manager._store.objects(step) if "/__1_" in info.key)
        manager._store.client.delete_object(manager._store.bucket, manager._store.key(step, lost))
        commit(step, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manager._store, "commit", commit_what_is_left)
        with pytest.raises(S3Exception, match=r"step 1 was not committed: .*__1_"):  # in every rank
            manager.save(1, _state(rank, 1))
    assert manager.latest() is None
