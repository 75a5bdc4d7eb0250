"""Two distributed saves of one path, lost responses, and requests that are carried out late.

What holds, on servers with conditional writes, in every order:

- the files that ``.metadata`` names are there, at any moment;
- a save that returns has replaced exactly the ``.metadata`` that it saw, once. So of the saves that saw one checkpoint
  at most one returns, and what returned is replaced only by a save that saw it.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata, MetadataIndex
from torch.distributed.checkpoint.storage import WriteResult

from s3torchconnector._errors import S3ConnectionError, S3ObjectChangedError
from s3torchconnector.dcp import S3StorageWriter
from tests.commits.world import CONFIG, Actor, Run, World, explore, stored
from tests.servers.memory_s3 import MemoryS3

COMMIT = "x/.metadata"
SAVERS = ("first", "second")


@pytest.fixture
def world() -> Iterator[World]:
    with World(SAVERS, COMMIT).open() as world:
        yield world


def described(name: str) -> tuple[Metadata, list[list[WriteResult]]]:
    index = MetadataIndex("a")
    info = _StorageInfo(f"{name}.distcp", 0, 1)
    return Metadata({"a": BytesStorageMetadata()}, storage_data={index: info}), [[WriteResult(index, 1, info)]]


def save(name: str, overwrite: bool, endpoint: str) -> None:
    """What ``dcp.save`` does once the file has been made, with the real writer."""
    writer = S3StorageWriter("us-east-1", "s3://b/x", CONFIG, endpoint=endpoint, overwrite=overwrite)
    writer.set_up_storage_writer(True)
    with writer.fs.create_stream(f"s3://b/x/{name}.distcp", "wb") as stream:
        stream.write(b"x")
    try:
        writer.finish(*described(name))
    finally:
        writer.fs._client.close()


def scenario(
    *, conditional: bool = True, before: bool = True, overwrite: bool = True
) -> Callable[[], tuple[MemoryS3, dict[str, Actor]]]:
    def make() -> tuple[MemoryS3, dict[str, Actor]]:
        s3 = MemoryS3(conditional=conditional)
        if before:
            s3.objects = {"x/old.distcp": stored(b"x", "old"), COMMIT: stored(pickle.dumps(described("old")[0]), "old")}
        return s3, {name: partial(save, name, overwrite) for name in SAVERS}

    return make


def saw(run: Run, name: str) -> str:
    """Whose checkpoint a save looked at, first."""
    looks = [owner for request, _, owner in run.history[name] if request.endswith(COMMIT) and request[:3] != "PUT"]
    return looks[0]


def check_data(run: Run) -> None:
    owner = run.owner(COMMIT)
    assert owner == "nobody" or f"x/{owner}.distcp" in run.s3.objects, (owner, run.choices)


def check(run: Run) -> None:
    check_data(run)
    replaced = []
    for name, result in run.results.items():
        if result is None:
            [before] = [before for owner, before in run.commits if owner == name]  # once
            assert saw(run, name) == before, run.choices
            replaced.append(before)
        else:
            assert isinstance(result, S3ObjectChangedError | RuntimeError | S3ConnectionError), result
            assert re.search("another job is saving to the same place|already exists|Connection", str(result))
    assert len(replaced) == len(set(replaced)), run.choices  # of those that saw one checkpoint, at most one returned


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("before", [True, False])
def test_in_every_order(world: World, before: bool, overwrite: bool) -> None:
    outcomes: set[Any] = set()

    def look(run: Run) -> None:
        check(run)
        if len(run.results) == 2:
            outcomes.add(tuple(run.results[name] is None for name in SAVERS))

    runs, states = explore(world, scenario(before=before, overwrite=overwrite), 0, look)
    assert states > runs > 3
    both = {(True, True)} if overwrite else set()  # one after the other
    assert outcomes == {(False, False)} if before and not overwrite else {(True, False), (False, True)} | both


@pytest.mark.parametrize(("before", "overwrite"), [(True, True), (False, True), (False, False)])
@pytest.mark.parametrize("lost", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_with_responses_that_get_lost(world: World, before: bool, overwrite: bool, lost: int) -> None:
    """And requests that are carried out after their retries, or never."""
    _, states = explore(world, scenario(before=before, overwrite=overwrite), lost, check)
    assert states > 20


@pytest.mark.parametrize("before", [True, False])
def test_lost_responses_alone_are_no_failure(world: World, before: bool) -> None:
    def make() -> tuple[MemoryS3, dict[str, Actor]]:
        s3, actors = scenario(before=before)()
        return s3, {"first": actors["first"]}

    def look(run: Run) -> None:
        check(run)
        assert set(run.results.values()) <= {None}, run.choices
        if run.results:
            assert run.owner(COMMIT) == "first"
            assert not run.detached or set(run.s3.objects) == {COMMIT, "x/first.distcp"}

    explore(world, make, 3, look)


def test_with_a_server_that_ignores_conditions(world: World) -> None:
    """No data is lost as long as no response is. If one is, a retry, or a request carried out late, puts back a
    checkpoint whose files another save has deleted; nothing here can keep a server from doing so.
    """
    explore(world, scenario(conditional=False), 0, check_data)
    without_data: set[str] = set()

    def look(run: Run) -> None:
        owner = run.owner(COMMIT)
        if f"x/{owner}.distcp" not in run.s3.objects:
            without_data.add(owner)
            assert [choice.actor for choice in run.choices if choice.what == "detach"] == [owner]

    explore(world, scenario(conditional=False), 1, look)
    assert without_data == set(SAVERS)
