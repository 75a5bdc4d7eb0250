"""The copy that ranks store in the background shares no memory with the program's tensors, whatever PyTorch does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.staging import BlockingAsyncStager

from s3torchconnector._checkpoint_manager._distributed import staged


class _SharesCpuTensors(BlockingAsyncStager):
    """Stages as PyTorch 2.4 does: what is in main memory already is not copied."""

    def stage(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        return {name: value if name == "model" else dict(value) for name, value in state_dict.items()}


@pytest.mark.parametrize("stager", [BlockingAsyncStager(), _SharesCpuTensors()])
def test_staged_tensors_are_copies(stager: BlockingAsyncStager) -> None:
    weight = torch.zeros(4)
    state = {"model": weight, "optimizer": {"moment": torch.zeros(2), "view": weight[1:], "step": 3}}
    copy = staged(stager, state)
    weight += 1
    state["optimizer"]["moment"] += 1  # type: ignore[index]
    assert copy["model"].tolist() == [0] * 4
    assert copy["optimizer"]["moment"].tolist() == [0] * 2
    assert copy["optimizer"]["view"].tolist() == [0] * 3
    assert copy["optimizer"]["step"] == 3


def test_parameters_are_copied() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    copy = staged(_SharesCpuTensors(), {"model": parameter})
    with torch.no_grad():
        parameter += 1
    assert copy["model"].tolist() == [0, 0]
