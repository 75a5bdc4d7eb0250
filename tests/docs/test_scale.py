"""docs/guide/scale.md: its calculator computes what the code does, and its tables have the figures that it prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from s3torchconnector import S3Client, S3ClientConfig
from s3torchconnector._dataset_source import _workers_of_this_loader
from s3torchconnector._transfer.engine._budget import ByteBudget
from s3torchconnector._transfer.engine._node import count_workers_by, share_of_node
from s3torchconnector._transfer.reading._look_ahead import Window
from tests.docs.pages import GUIDE

_PAGE = GUIDE["scale"]
[_BLOCK] = _PAGE.blocks("python")
_CONFIGS = [S3ClientConfig(), S3ClientConfig(max_connections=500, throughput_target_gbps=200.0)]
_PLACES = [(1, 1), (1, 2), (1, 9), (8, 1), (8, 8), (4, 3)]  # ranks of a node, workers of each


@pytest.fixture(scope="module")
def calculator() -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "__main__"}  # which dataclasses look up
    exec(compile(_BLOCK.text, _PAGE.name, "exec"), namespace)
    return namespace


@pytest.fixture
def on_a_node(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """As in a data worker of one of the node's ranks."""
    ranks, workers = request.param
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    count_workers_by(lambda: workers)
    yield ranks, workers
    count_workers_by(_workers_of_this_loader)


@pytest.mark.parametrize("config", _CONFIGS)
@pytest.mark.parametrize("on_a_node", _PLACES, indirect=True)
def test_workers_share_as_the_calculator_says(
    calculator: dict[str, Any], on_a_node: tuple[int, int], config: S3ClientConfig
) -> None:
    ranks, workers = on_a_node
    job, share = calculator["Job"](ranks=ranks, workers=workers, config=config), share_of_node(config)
    assert job.connections == share.max_connections
    assert share.throughput_target_gbps == pytest.approx(config.throughput_target_gbps / job.sharing)


@pytest.mark.usefixtures("s3_server")
@pytest.mark.parametrize("size", [10_000, 110 * 1024, 5 * 2**20, 200 * 2**20])
@pytest.mark.parametrize("on_a_node", [(8, 8), (1, 4)], indirect=True)
def test_as_many_objects_are_in_flight(calculator: dict[str, Any], on_a_node: tuple[int, int], size: int) -> None:
    ranks, workers = on_a_node
    config = S3ClientConfig(max_connections=24)  # as many as to a server nearby
    job = calculator["Job"](ranks=ranks, workers=workers, size=size, config=config)
    with S3Client("us-east-1", endpoint="http://localhost:9", s3client_config=config) as client:
        window = Window([client._runtime], None)
        window.note(size)
        budget, in_flight = client._runtime().budget, 0
        while in_flight < window.most() and window.has_room(in_flight):
            assert budget.try_take(min(size, config.part_size))
            in_flight += 1
        budget.give_back(budget.taken)
    assert in_flight == job.in_flight


def test_a_budget_has_the_overdraft_of_the_calculator() -> None:
    budget = ByteBudget(S3ClientConfig().memory_budget)
    assert budget.limit + budget.overdraft == budget.limit * 9 // 8


def test_the_tables_have_the_figures_that_are_printed() -> None:
    cells = [row[-1] for title in _PAGE.anchors_of(level=2) for row in _rows(title) if row[-1]]
    assert len(cells) >= 15
    assert _BLOCK.printed is not None
    assert [cell for cell in cells if cell not in _BLOCK.printed] == []


def _rows(anchor: str) -> list[list[str]]:
    [title] = [
        line.removeprefix("## ")
        for line in _PAGE.prose.splitlines()
        if line.startswith("## ") and line[3:].lower().replace(",", "").replace(" ", "-") == anchor
    ]
    return [row for row in _PAGE.rows(title) if len(row) > 1]
