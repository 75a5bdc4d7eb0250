"""Tensors that are stored from where they are: their memory is lent to the upload instead of copied into parts.

PyTorch hands over a tensor's memory by its address, in one large write in the middle of many small ones. What lies at
an address that ``LendingPlanner`` has seen is a tensor of the program, which does not change before the save has ended
(an asynchronous save stages a copy first); what lies elsewhere (copies from other devices, copies of a part of a
storage) is gone after the write, and is copied as any other data. So is what planners with a ``resolve_data``
of their own give: what they make for the save would stay in memory until it is stored, without bounds.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.planner import SavePlanner, WriteItem

from s3torchconnector._config import KIB
from s3torchconnector._transfer import PutObjectStream, address_of
from s3torchconnector.s3writer import S3Writer

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_WORTH_LENDING = 64 * KIB  # bytes of a tensor from which on it is lent: each takes a buffer in the request


class LendingPlanner:
    """A planner that remembers, for the thread that writes one file, the tensors that it has been asked for."""

    def __init__(self, planner: SavePlanner) -> None:
        self._planner = planner
        self._lends = _gives_what_is_there(planner)
        self._lendable: dict[tuple[int, int], torch.UntypedStorage] = {}

    def resolve_data(self, write_item: WriteItem) -> Any:
        """As PyTorch's planner."""
        data = self._planner.resolve_data(write_item)
        if self._lends and isinstance(data, torch.Tensor) and _is_plain(data):
            storage = data.untyped_storage()
            if storage.nbytes() == data.nbytes >= _WORTH_LENDING:
                self._lendable[storage.data_ptr(), storage.nbytes()] = storage
        return data

    def take(self, view: memoryview) -> memoryview | None:
        """The tensor's memory that ``view`` shows, in a view that keeps it; None where nobody keeps it."""
        if not self._lendable:
            return None
        storage = self._lendable.pop((address_of(view), view.nbytes), None)
        if storage is None:
            return None
        memory = (ctypes.c_ubyte * storage.nbytes()).from_address(storage.data_ptr())
        memory.owner = storage  # type: ignore[attr-defined]
        return memoryview(memory).cast("B")


class LendingWriter(S3Writer):
    """Writes what PyTorch serialises; see the module.

    ``when_written`` is called when all of it is here, and is about to be completed.
    """

    def __init__(self, stream: PutObjectStream, planner: LendingPlanner, when_written: Callable[[], object]) -> None:
        super().__init__(stream)
        self._planner = planner
        self._when_written = when_written
        self._gathered = bytearray()  # small writes since the last large one: PyTorch makes forty of them a tensor

    def close(self) -> None:
        """As ``S3Writer``."""
        if not self.closed:
            self._pass_on()
            self._when_written()
        super().close()

    def write(self, data: ReadableBuffer) -> int:
        """Write bytes; they may be changed when this returns, unless they are a tensor's."""
        self._check_open()
        view = memoryview(data)
        if view.nbytes < _WORTH_LENDING:
            self._gathered += view
            if len(self._gathered) >= _WORTH_LENDING:
                self._pass_on()
        else:
            self._pass_on()
            lent = self._planner.take(view)
            if lent is None:
                return super().write(view)
            self.stream.write(lent, lent=True)
        self._position += view.nbytes
        return view.nbytes

    def _pass_on(self) -> None:
        if self._gathered:
            self.stream.write(self._gathered)  # copied
            self._gathered.clear()


def _gives_what_is_there(planner: SavePlanner) -> bool:
    kind = type(planner)
    return isinstance(planner, DefaultSavePlanner) and all(
        getattr(kind, name) is getattr(DefaultSavePlanner, name)
        for name in ("resolve_data", "lookup_object", "transform_object")
    )


def _is_plain(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.layout == torch.strided and not hasattr(tensor, "__tensor_flatten__")
