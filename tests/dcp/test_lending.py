"""Tensors that are sent from their own memory: which are lent, and that their memory stays until it is sent."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.planner import WriteItem

from s3torchconnector._progress import Progress
from s3torchconnector.dcp._lend import LendingPlanner
from s3torchconnector.dcp._uploads import Uploads
from tests.dcp.support import keys_of, load, same, writer_of
from tests.wrapper_tensor import Wrapper

MIB = 1024**2


def _place(tensor: torch.Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), tensor.nbytes


def test_tensors_of_the_state_are_lent_and_the_rest_copied(bucket: str, lent: list[tuple[int, int]]) -> None:
    base = torch.randn(1000, 1000)
    state = {
        "whole": torch.randn(3000, 1000),  # several parts
        "transposed": torch.randn(500, 700).t(),
        "parameter": torch.nn.Parameter(torch.randn(300, 300)),
        "conjugate": torch.view_as_complex(torch.randn(200, 200, 2)).conj(),
        "small": torch.randn(10),
        "part of a storage": base[100:200],
    }
    dcp.save(state, storage_writer=writer_of(f"s3://{bucket}/lent"))
    assert sorted(lent) == sorted(_place(state[name]) for name in ("whole", "transposed", "parameter", "conjugate"))
    assert same(load(f"s3://{bucket}/lent", state), state)


def test_one_tensor_under_two_names(bucket: str) -> None:
    tensor = torch.randn(1000, 300)
    state = {"one": tensor, "two": tensor}
    dcp.save(
        state,
        storage_writer=writer_of(f"s3://{bucket}/twice"),
        planner=DefaultSavePlanner(dedup_replicated_tensors=False),
    )
    assert same(load(f"s3://{bucket}/twice", state), state)


class _Doubling(DefaultSavePlanner):
    """A planner that makes tensors for the save alone."""

    def resolve_data(self, write_item: WriteItem) -> Any:
        data = super().resolve_data(write_item)
        return data * 2 if isinstance(data, torch.Tensor) else data


def test_what_a_planner_makes_is_copied(bucket: str, lent: list[tuple[int, int]]) -> None:
    state = {str(number): torch.full((1000, 300), float(number)) for number in range(20)}
    dcp.save(state, storage_writer=writer_of(f"s3://{bucket}/made"), planner=_Doubling())
    assert not lent
    assert same(load(f"s3://{bucket}/made", state), {name: tensor * 2 for name, tensor in state.items()})


def test_lent_memory_outlives_its_tensor(bucket: str) -> None:
    """The view that the upload gets keeps the storage alive, even if the tensor is gone."""
    tensor = torch.full((1000, 300), 7.0)
    planner = DefaultSavePlanner()
    planner.set_up_planner({"it": tensor}, is_coordinator=True)
    lending = LendingPlanner(planner)
    [item] = planner.create_local_plan().items
    lending.resolve_data(item)
    shown = memoryview(tensor.numpy()).cast("B").toreadonly()
    assert lending.lendable.find(shown[4:]) is None
    view = lending.lendable.find(shown)
    assert view is not None
    expected = bytes(shown)
    del shown, tensor, planner, lending, item
    gc.collect()
    others = [torch.zeros(1000, 300) for _ in range(20)]  # would be allocated where the tensor was
    assert view == expected
    assert len(others) == 20


def test_wrapper_tensors_are_copied(bucket: str, lent: list[tuple[int, int]]) -> None:
    state: dict[str, Any] = {"wrapper": Wrapper(torch.randn(300, 100))}
    dcp.save(state, storage_writer=writer_of(f"s3://{bucket}/odd"))
    assert not lent
    [file] = [key for key in keys_of(bucket) if key.endswith(".distcp")]
    with writer_of(f"s3://{bucket}").fs.create_stream(f"s3://{bucket}/{file}", "rb") as stored:
        assert torch.equal(torch.load(stored, weights_only=False).inner, state["wrapper"].inner)


@pytest.mark.parametrize("closed", [True, False])
def test_the_last_small_writes_are_stored(bucket: str, closed: bool) -> None:
    """Small writes are gathered, and not all versions of PyTorch close the stream."""
    writer = writer_of(f"s3://{bucket}")
    written: list[str] = []
    uploads = Uploads(writer.fs, [f"s3://{bucket}/it"], lambda: written.append("all"), Progress(False, "saving"))
    with uploads.create_stream(LendingPlanner(DefaultSavePlanner()), f"s3://{bucket}/it", "wb") as stream:
        for _ in range(3):
            stream.write(b"little")
        assert (stream.tell(), written) == (18, [])
        if closed:
            stream.close()
    assert written == ["all"]
    with writer.fs.create_stream(f"s3://{bucket}/it", "rb") as stored:
        assert stored.read() == b"little" * 3
