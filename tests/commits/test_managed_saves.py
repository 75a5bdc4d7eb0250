"""A requeued job and its zombie that save the same step, retention, a cleaner and a loader, in every order.

What holds, on servers with conditional writes:

- the objects that a manifest names are there, at any moment;
- a save that returns has replaced exactly the manifest that it saw (or none), once;
- a load returns the whole of one checkpoint, or raises an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from s3torchconnector import S3CheckpointManager
from s3torchconnector._errors import S3ConnectionError, S3NotFoundError, S3ObjectChangedError
from tests.commits.world import CONFIG, Actor, Run, World, explore, stored
from tests.servers.memory_s3 import MemoryS3
from tests.servers.scripted import ScriptedServer

STEP = "run/step-0000000002.json"
JOBS = ("zombie", "requeued")
_AGO = 100_000


@contextmanager
def managed(endpoint: str, **options: Any) -> Iterator[S3CheckpointManager]:
    manager = S3CheckpointManager("s3://b/run", "us-east-1", endpoint=endpoint, s3client_config=CONFIG, **options)
    try:
        yield manager
    finally:
        manager.close()


def save(name: str, step: int, keep_last: int | None, endpoint: str) -> None:
    with managed(endpoint, keep_last=keep_last) as manager:
        manager.save(step, {"by": name})


def load(endpoint: str) -> Any:
    with managed(endpoint) as manager:
        return manager.load(2)["by"]


def clean(endpoint: str) -> Any:
    with managed(endpoint) as manager:
        return manager.clean(dry_run=False, min_age=_AGO / 2).objects


def before(*steps: int) -> dict[str, Any]:
    """The objects of steps that were saved long ago, by the manager itself."""
    s3 = MemoryS3()
    s3.now -= _AGO
    with ScriptedServer(handler=partial(s3.answer, owner="old")) as server:
        for step in steps:
            save("old", step, None, server.endpoint)
    return s3.objects


Scenario = Callable[[], tuple[MemoryS3, dict[str, Actor]]]


def scenario(objects: dict[str, Any], actors: dict[str, Actor], *, conditional: bool = True) -> Scenario:
    def make() -> tuple[MemoryS3, dict[str, Actor]]:
        s3 = MemoryS3(conditional=conditional)
        s3.objects = dict(objects)
        return s3, actors

    return make


def both(step: int = 2, keep_last: int | None = None) -> dict[str, Actor]:
    return {name: partial(save, name, step, keep_last) for name in JOBS}


def check_data(run: Run) -> None:
    for key, there in list(run.s3.objects.items()):
        if key.endswith(".json"):
            for each in json.loads(there.data)["objects"]:
                data = run.s3.objects.get(f"{key.removesuffix('.json')}/{each['key']}")
                assert data is not None, (key, there.owner, run.choices)
                assert data.owner == there.owner


def check(run: Run, commit: str = STEP) -> None:
    check_data(run)
    for name, result in run.results.items():
        if name in JOBS and result is None:
            [replaced] = [replaced for owner, replaced in run.commits if owner == name]  # once
            saw = next(owner for request, _, owner in run.history[name] if request == f"GET {commit}")
            assert saw == replaced, run.choices
        elif name in JOBS:
            assert isinstance(result, S3ObjectChangedError | S3ConnectionError), result


_SLOW = pytest.param((2,), 1, marks=pytest.mark.slow)


@pytest.mark.parametrize(("steps", "lost"), [((), 0), ((), 1), ((2,), 0), _SLOW])
def test_a_requeued_job_and_its_zombie(steps: tuple[int, ...], lost: int) -> None:
    outcomes: set[Any] = set()

    def look(run: Run) -> None:
        check(run)
        if len(run.results) == 2:
            outcomes.add(tuple(run.results[name] is None for name in JOBS))

    with World(JOBS, STEP).open() as world:
        explore(world, scenario(before(*steps), both()), lost, look)
    assert outcomes >= {(True, True), (True, False), (False, True)}


def test_lost_responses_alone_are_no_failure() -> None:
    def look(run: Run) -> None:
        check(run)
        assert set(run.results.values()) <= {None}, run.choices

    with World(JOBS[:1], STEP).open() as world:
        explore(world, scenario(before(2), {"zombie": both()["zombie"]}), 2, look)


@pytest.mark.parametrize("lost", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_step_that_is_saved_again_while_retention_deletes_it(lost: int) -> None:
    """The zombie saves step 1 again, and the job whose step 2 takes its place deletes it."""
    commit = "run/step-0000000001.json"
    actors = {"zombie": partial(save, "zombie", 1, None), "requeued": partial(save, "requeued", 2, 1)}

    def look(run: Run) -> None:
        check_data(run)
        assert run.results.get("requeued") is None
        if "zombie" in run.results and run.results["zombie"] is None:
            assert [owner for owner, _ in run.commits].count("zombie") == 1

    with World(JOBS, commit).open() as world:
        explore(world, scenario(before(1), actors), lost, look)


def test_a_cleaner_whose_clock_is_wrong() -> None:
    """What is being saved is younger than it cleans, by S3's clock. This machine's is far ahead of that."""
    left = {"run/step-0000000002/left/state.pt": stored(b"x", "left")}
    old = {**before(2), **left}
    actors: dict[str, Actor] = {"zombie": both()["zombie"], "cleaner": clean}

    def look(run: Run) -> None:
        check(run)
        assert run.results.get("zombie") is None
        if "cleaner" in run.results:
            assert not left.keys() & run.s3.objects.keys()
            # Besides, what the old checkpoint had, if that was replaced and its objects were still there.
            assert {"s3://b/" + key for key in left} <= set(run.results["cleaner"]) <= {f"s3://b/{key}" for key in old}

    with World(("zombie", "cleaner"), STEP).open() as world:
        explore(world, scenario(old, actors), 0, look)


def test_a_loader_gets_all_of_one_checkpoint_or_an_error() -> None:
    actors: dict[str, Actor] = {"zombie": both()["zombie"], "loader": load}
    loaded = set()

    def look(run: Run) -> None:
        check(run)
        result = run.results.get("loader", "old")
        assert result in ("old", "zombie") or isinstance(result, S3NotFoundError), result
        loaded.add(result if isinstance(result, str) else "not found")

    with World(("zombie", "loader"), STEP).open() as world:
        explore(world, scenario(before(2), actors), 0, look)
    assert loaded == {"old", "zombie", "not found"}


def test_with_a_server_that_ignores_conditions() -> None:
    """As of distributed saves: no data is lost as long as no response is."""
    with World(JOBS, STEP).open() as world:
        explore(world, scenario(before(2), both(), conditional=False), 0, check_data)
