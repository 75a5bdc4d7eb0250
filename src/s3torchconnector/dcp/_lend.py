"""Which tensors of a distributed save are lent to its uploads, see ``_torch_archives``: those that the planner finds.

What planners with a ``resolve_data`` of their own give is copied: what they make for the save would stay in memory
until it is stored, without bounds. An asynchronous save stages a copy first, which does not change.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.planner import SavePlanner, WriteItem

from s3torchconnector._torch_archives import Lendable


class LendingPlanner:
    """A planner that remembers, for the thread that writes one file, the tensors that it has been asked for."""

    def __init__(self, planner: SavePlanner) -> None:
        self.lendable = Lendable()
        self._planner = planner
        self._lends = _gives_what_is_there(planner)

    def resolve_data(self, write_item: WriteItem) -> Any:
        """As PyTorch's planner."""
        data = self._planner.resolve_data(write_item)
        if self._lends and isinstance(data, torch.Tensor):
            self.lendable.add(data)
        return data


def _gives_what_is_there(planner: SavePlanner) -> bool:
    kind = type(planner)
    return isinstance(planner, DefaultSavePlanner) and all(
        getattr(kind, name) is getattr(DefaultSavePlanner, name)
        for name in ("resolve_data", "lookup_object", "transform_object")
    )
