"""SIGKILL of ranks at random moments of a save never costs the previous checkpoint, nor commits a half."""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp

from tests.dcp import jobs
from tests.dcp.support import arguments_of_group, in_group, mixed_state, reader_of, same

_KILLS = 50
_SURVIVALS = 10
_SECONDS_TO_NOTICE = 60.0  # until a rank that waits for a killed one must have ended; it takes a second


@pytest.mark.slow
def test_killed_at_random_moments(bucket: str, tmp_path: Path) -> None:
    _kill_again_and_again(bucket, tmp_path, _KILLS, seed=0, ranks=lambda number: (number % 2 + 1, None))


@pytest.mark.slow
def test_a_surviving_rank_ends_and_commits_no_half_checkpoint(bucket: str, tmp_path: Path) -> None:
    """It finds out in the middle of a save, and fails; rank 1 as well as rank 0, which commits."""
    _kill_again_and_again(bucket, tmp_path, _SURVIVALS, seed=1, ranks=lambda number: (2, number % 2))


def _kill_again_and_again(
    bucket: str, tmp_path: Path, times: int, seed: int, ranks: Callable[[int], tuple[int, int | None]]
) -> None:
    """Have ranks save, and killed, over and over to one path; ``ranks`` tells how many ranks, and the victim."""
    path = f"s3://{bucket}/x"
    chance = random.Random(seed)
    first = 1
    for number in range(times):
        count, victim = ranks(number)
        reported = _save_until_killed(count, tmp_path / str(number), path, first, chance, victim)
        state = _loaded(path, count)
        # The last one reported, or the next one, which was committed but not reported.
        assert state["step"] in (reported, reported + 1)
        first = reported + 2


def _save_until_killed(
    count: int, store: Path, path: str, first: int, chance: random.Random, victim: int | None
) -> int:
    """Let ranks save, and kill one of them some time after a checkpoint is complete.

    If the victim is not named, it is any, and the others are killed as well; otherwise they go on to their own end.

    Returns the last step that was reported as complete.
    """
    context = multiprocessing.get_context("forkserver")
    reports, reporting = context.Pipe(duplex=False)
    group = arguments_of_group(count, store, jobs.save_for_ever, path, first, reporting)
    ranks = [context.Process(target=in_group, args=(rank, *group)) for rank in range(count)]
    try:
        for rank in ranks:
            rank.start()
        reporting.close()
        wait([reports, *(rank.sentinel for rank in ranks)])
        time.sleep(chance.uniform(0.0, 0.15))  # the random moment
        killed = chance.choice(ranks) if victim is None else ranks[victim]
        assert killed.exitcode is None
        killed.kill()
        if victim is not None:
            _wait_for_survivors([rank for rank in ranks if rank is not killed])
    finally:
        for rank in ranks:
            rank.kill()
            rank.join()
    return max(_received(reports))


def _wait_for_survivors(ranks: list[BaseProcess]) -> None:
    """Until they have ended, with an error, since one of them was killed."""
    for rank in ranks:
        rank.join(_SECONDS_TO_NOTICE)
        assert rank.exitcode, f"a rank that survived has not failed: {rank}"


def _received(reports: Connection) -> Iterator[int]:
    with reports, contextlib.suppress(EOFError):
        while True:
            yield reports.recv()


def _loaded(path: str, count: int) -> dict[str, Any]:
    """The checkpoint that is there, all of one save."""
    state: dict[str, Any] = {f"of rank {rank}": torch.zeros(1000, 500, dtype=torch.int64) for rank in range(count)}
    state |= {"step": 0, "mixed": {name: torch.zeros_like(each) for name, each in mixed_state()["small"].items()}}
    dcp.load(state, storage_reader=reader_of(path))
    for rank in range(count):
        assert state[f"of rank {rank}"].unique().tolist() == [state["step"]]
    assert same(state["mixed"], mixed_state(state["step"])["small"])
    return state
