"""Chooses the tensors of a distributed save that are lent to its uploads (see ``_torch_archives``): those of the state
itself.

If a planner overrides ``resolve_data``, its tensors are copied. It may make them for the save, and lent tensors would
stay in memory until they are stored, without a limit. An asynchronous save makes a copy first, and nothing changes that
copy.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.planner import SavePlanner, WriteItem

from s3torchconnector._torch_archives import Lendable


class LendingPlanner:
    """A planner that remembers the tensors that it returns, for the thread that writes one file."""

    def __init__(self, planner: SavePlanner) -> None:
        self.lendable = Lendable()
        self._planner = planner
        self._lends = _returns_the_state(planner)

    def resolve_data(self, write_item: WriteItem) -> Any:
        """Return what the planner returns."""
        data = self._planner.resolve_data(write_item)
        if self._lends and isinstance(data, torch.Tensor):
            self.lendable.add(data)
        return data


def _returns_the_state(planner: SavePlanner) -> bool:
    """Whether what the planner returns are tensors of the program's state, and not made for the save."""
    kind = type(planner)
    return isinstance(planner, DefaultSavePlanner) and all(
        getattr(kind, name) is getattr(DefaultSavePlanner, name)
        for name in ("resolve_data", "lookup_object", "transform_object")
    )
