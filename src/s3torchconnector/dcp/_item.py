"""One stored item of a checkpoint, and how its bytes come to what the program loads: tensors or bytes.

A large tensor is received directly into the memory of its target, if it has the same layout there. Everything else is
received into a buffer, and copied to its target. ``prepare``, ``finish`` and all that calls the planner run on the
thread that loads; ``begin``, ``rest`` and ``whole`` run on the thread that receives, one at a time for each request.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import torch
from torch.distributed._shard._utils import narrow_tensor_by_index
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlanner, ReadItem

from s3torchconnector._config import KIB
from s3torchconnector._tensor_memory import memory_of
from s3torchconnector._transfer import FillableBytes, Range, address_of, discarded
from s3torchconnector.dcp._layout import TensorLayout, layout_of
from s3torchconnector.dcp._plan import is_large


class _Place(NamedTuple):
    """All that is needed to receive bytes into a tensor.

    Each question to the tensor itself releases the interpreter lock, and waits half a millisecond to get it back while
    other threads receive.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    memory: memoryview


class StoredItem:
    """An item, and everything that the plan wants of it.

    Args:
        info: PyTorch's ``_StorageInfo``.
        transforms: PyTorch's ``_StorageReaderTransforms``, for items that an extension has encoded.
        expected: the layout of a tensor by the metadata. Where it is in the item is known when the head has arrived.
    """

    def __init__(self, info: Any, transforms: Any, expected: TensorLayout | None) -> None:
        self.extent = Range(info.offset, info.offset + info.length)
        self.wanted: list[ReadItem] = []
        self.left = self.extent.size  # bytes not yet received
        self._descriptors = getattr(info, "transform_descriptors", None) or ()
        self._transforms = transforms
        self._expected = expected
        self._targets: list[torch.Tensor] = []
        self._place: _Place | None = None  # of the only target
        self._content = memoryview(b"")  # of the whole item, unless it is received directly
        self._direct: tuple[Range, memoryview] | None = None  # bytes of the item, and where they go

    # -- on the thread that loads -------------------------------------------------------------------------------------

    def prepare(self, planner: LoadPlanner) -> int:
        """Find the targets, before the first byte is requested. Returns the bytes of memory that are probably needed.

        A planner may make its targets now, and not before.
        """
        if all(each.type == LoadItemType.TENSOR for each in self.wanted):
            self._targets = [planner.resolve_tensor(each).detach() for each in self.wanted]
            self._place = self._find_place()
        direct = self._expected is not None and self._span(self._expected) is not None
        return 0 if direct and is_large(self.extent) else self.extent.size

    def needs(self, part: Range) -> bool:
        """Whether these bytes of the file are wanted. Known when the head has arrived."""
        if self._direct is None:
            return True
        wanted = self._direct[0]
        start, stop = part.start - self.extent.start, part.stop - self.extent.start
        return start < wanted.stop and wanted.start < stop

    def finish(self, planner: LoadPlanner) -> None:
        """All bytes have arrived: copy them to the targets, and release their memory."""
        for number, each in enumerate(self.wanted):
            if each.type == LoadItemType.BYTE_IO:
                planner.load_bytes(each, self._stream(each))
                continue
            target = self._targets[number]
            if self._direct is None:
                stored = self._slice(each)
                if target.size() != stored.size():
                    raise ValueError(
                        f"{each.storage_index.fqn} cannot be loaded: the checkpoint has a tensor of size "
                        f"{tuple(stored.size())}, the program one of {tuple(target.size())}"
                    )
                target.copy_(stored)
            planner.commit_tensor(each, target)
        self._content, self._direct, self._place, self._targets = memoryview(b""), None, None, []

    def _slice(self, wanted: ReadItem) -> torch.Tensor:
        tensor = self._tensor_in_place() if not self._descriptors else None
        if tensor is None:
            tensor = cast(torch.Tensor, torch.load(self._stream(wanted), map_location="cpu", weights_only=True))
        return narrow_tensor_by_index(tensor, wanted.storage_offsets, wanted.lengths)

    def _tensor_in_place(self) -> torch.Tensor | None:
        """The tensor, in the memory that its bytes were received into; None if ``torch.load`` must make it."""
        layout = layout_of(bytes(self._content[:_ENOUGH]), len(self._content))
        if layout is None:
            return None
        numbers = self._content[layout.start : layout.stop]
        if address_of(numbers) % layout.dtype.itemsize:
            numbers = memoryview(bytearray(numbers))
        return torch.frombuffer(numbers, dtype=layout.dtype).view(layout.shape)

    def _stream(self, wanted: ReadItem) -> io.BytesIO:
        content = io.BytesIO(self._content)
        if not self._descriptors:
            return content
        decoded = self._transforms.transform_load_stream(wanted, self._descriptors, content)
        return io.BytesIO(decoded.read(-1))

    def _find_place(self) -> _Place | None:
        if len(self._targets) != 1 or self._descriptors:
            return None
        target = self._targets[0]
        simple = target.layout == torch.strided and target.device.type == "cpu" and type(target) is torch.Tensor
        if not simple or target.is_conj() or target.is_neg() or not target.is_contiguous() or not target.numel():
            return None
        return _Place(target.dtype, tuple(target.size()), memory_of(target))

    # -- on the thread that receives ----------------------------------------------------------------------------------

    def whole(self, content: memoryview) -> None:
        """Take all bytes of a small item."""
        self._content = content

    def begin(self, head: memoryview) -> int:
        """Take the head of a large item, and decide where the rest goes. Returns the bytes of memory that it takes."""
        layout = layout_of(bytes(head), self.extent.size)
        span = None if layout is None else self._span(layout)
        if span is None or self._place is None:
            self._content = FillableBytes(bytes(self.extent.size)).getbuffer()  # zeroed by the kernel, page by page
            self._content[: len(head)] = head
            return len(self._content)
        memory = self._place.memory
        self._direct = span, memory
        here = head[span.start : span.stop]
        memory[: len(here)] = here
        return 0

    def rest(self, part: Range) -> Iterator[memoryview]:
        """Where to receive these bytes of the file, which come after the head."""
        start, stop = part.start - self.extent.start, part.stop - self.extent.start
        if self._direct is None:
            yield self._content[start:stop]
            return
        wanted, memory = self._direct
        first, last = (min(max(start, place), stop) for place in wanted)
        yield from discarded(first - start)
        if first < last:
            yield memory[first - wanted.start : last - wanted.start]
        yield from discarded(stop - last)

    def _span(self, layout: TensorLayout) -> Range | None:
        """The bytes of the item that can be received directly into the target; None if that is not possible."""
        place, wanted = self._place, self.wanted[0]
        if place is None or layout.dtype != place.dtype or tuple(wanted.lengths) != place.shape:
            return None
        span = layout.slice_of(wanted.storage_offsets, wanted.lengths)
        return span if span is not None and span.size == len(place.memory) else None


_ENOUGH = 16 * KIB  # a tensor whose numbers begin after this number of bytes is left to torch.load
