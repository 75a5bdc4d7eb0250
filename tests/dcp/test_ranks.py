"""Saving and loading by real ranks: processes in a gloo group."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp

from tests.dcp import jobs
from tests.dcp.support import keys_of, reader_of, run_ranks, writer_of
from tests.servers.proxy import RecordingProxy

pytestmark = pytest.mark.usefixtures("s3_server")


@pytest.mark.parametrize(
    "job",
    [jobs.fsdp2_and_ddp, jobs.async_in_thread_and_process, jobs.one_rank_fails, jobs.another_job_is_faster],
    ids=lambda job: job.__name__,
)
def test_two_ranks(bucket: str, job: Any) -> None:
    run_ranks(2, job, f"s3://{bucket}/x")


def test_ranks_that_commit_on_their_own(bucket: str) -> None:
    run_ranks(2, jobs.without_collectives, f"s3://{bucket}/x")
    names = sorted(key.removeprefix("x/") for key in keys_of(bucket))
    assert names[0] == "__0.metadata"
    assert [name[:4] for name in names[1:]] == ["__0_", "__1.", "__1_"]  # the files of the first save were deleted


def test_the_world_size_is_the_default_prefix_count(bucket: str) -> None:
    run_ranks(2, jobs.prefixes_for_the_group, f"s3://{bucket}/x")
    found = {name: [re.sub("[0-9a-f]{16}_", "", key.removeprefix(f"x/{name}/")) for key in keys_of(bucket, f"x/{name}")]
             for name in ("binary", "hex")}  # fmt: skip
    assert found == {
        "binary": [".metadata", "0/__0_0.distcp", "1/__1_0.distcp"],
        "hex": [".metadata"] + [f"{rank}000000000/epoch_4/__{rank}_0.distcp" for rank in range(2)],
    }


def test_two_ranks_to_one(bucket: str, proxy: RecordingProxy) -> None:
    run_ranks(2, jobs.save_sharded, f"s3://{bucket}/x")
    state: dict[str, Any] = {name: torch.zeros(jobs.ROWS, 3000) for name in ("rows", "columns", "replicated")}
    state |= {f"of rank {rank}": torch.zeros(10, dtype=torch.int64) for rank in range(2)} | {"step": 0}
    dcp.load(state, storage_reader=reader_of(f"s3://{bucket}/x", endpoint=proxy.endpoint))
    for seed, name in enumerate(("rows", "columns", "replicated")):
        assert torch.equal(state[name], jobs.numbers(seed))
    assert [state["of rank 1"].tolist(), state["step"]] == [[1] * 10, 7]
    assert sum(each.body_bytes for each in proxy.of("GET")) < 1.01 * 3 * jobs.numbers().nbytes


def test_one_rank_to_two(bucket: str) -> None:
    state = {name: jobs.numbers(seed) for seed, name in enumerate(("rows", "columns", "replicated"))}
    dcp.save(state, storage_writer=writer_of(f"s3://{bucket}/x"))
    run_ranks(2, jobs.load_sharded, f"s3://{bucket}/x")


def test_a_slice_fetches_only_the_parts_that_it_is_in(bucket: str, proxy: RecordingProxy) -> None:
    """Loads as one of many ranks: some rows of what one process saved."""
    from torch.distributed.checkpoint.metadata import MetadataIndex
    from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, ReadItem

    tensor = torch.randn(4000, 3000)  # 48 MB
    dcp.save({"a": tensor}, storage_writer=writer_of(f"s3://{bucket}"))

    class OneSlice(dcp.DefaultLoadPlanner):
        target = torch.zeros(100, 3000)

        def create_local_plan(self) -> LoadPlan:
            index = MetadataIndex("a", (0, 0), 0)
            rows = torch.Size([100, 3000])
            offsets, start = torch.Size([3000, 0]), torch.Size([0, 0])
            return LoadPlan([ReadItem(LoadItemType.TENSOR, index, start, index, offsets, rows)])

        def resolve_tensor(self, read_item: ReadItem) -> torch.Tensor:
            return self.target

    planner = OneSlice()
    reader = reader_of(f"s3://{bucket}", endpoint=proxy.endpoint)
    dcp.load({"a": torch.empty(0)}, storage_reader=reader, planner=planner)
    assert torch.equal(planner.target, tensor[3000:3100])
    assert sum(each.body_bytes for each in proxy.of("GET")) < 16e6
