"""Which bytes of a file a slice of a tensor needs, and where they go.

What has the same layout in the file and in memory (whole tensors, rows of the first dimension) is received in place.
The elements of a slice of later dimensions are scattered over the file. If a row is worth a request of its own, each
row is treated as a tensor with one dimension less. Smaller rows are received whole, a few at a time, and their columns
are copied.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

from s3torchconnector._config import MIB
from s3torchconnector._tensor_memory import memory_of
from s3torchconnector._transfer import Piece

Index = slice | tuple[slice, ...]

_LARGE_ROW = 1 * MIB  # bytes
_STAGE = 32 * MIB  # bytes of rows that are received at a time, to copy some of their columns


def as_index(name: str, shape: Sequence[int], index: Index | None) -> tuple[slice, ...]:
    """One slice for each of the first dimensions, within the bounds of the shape.

    Raises:
        TypeError: ``index`` is not a slice or a tuple of slices.
        ValueError: it has more dimensions than the tensor, or a negative step.
    """
    slices = () if index is None else index if isinstance(index, tuple) else (index,)
    if not all(isinstance(each, slice) for each in slices):
        raise TypeError(
            f"{name!r} must be indexed by a slice or a tuple of slices, not by {index!r}: write slice(3, 4) for 3"
        )
    if len(slices) > len(shape):
        raise ValueError(f"{name!r} has {len(shape)} dimensions, too few for the index {index!r}")
    bounds = [each.indices(size) for each, size in zip(slices, shape, strict=False)]
    if any(step < 0 for _, _, step in bounds):
        raise ValueError(f"{name!r} cannot be read backwards: the index {index!r} has a negative step")
    # A step beyond the end selects one element, but may be too large a number for PyTorch.
    return tuple(
        slice(start, max(start, stop), min(step, max(size, 1)))
        for (start, stop, step), size in zip(bounds, shape, strict=False)
    )


class Selection:
    """A tensor of a file, or a slice of it.

    Args:
        start: the position of its first byte in the file.
        index: what ``as_index`` returned.
    """

    def __init__(
        self, name: str, dtype: torch.dtype, shape: Sequence[int], start: int, index: tuple[slice, ...]
    ) -> None:
        self.name = name
        self._dtype = dtype
        self._stored_shape = tuple(shape)
        self._start = start
        while index and _selects_all(index[-1], shape[len(index) - 1]):
            index = index[:-1]
        self._index = index
        lengths = [len(range(size)[each]) for each, size in zip(index, shape, strict=False)]
        self.shape = (*lengths, *shape[len(index) :])

    @property
    def bytes(self) -> int:
        """The size of what is selected."""
        return math.prod(self.shape) * self._dtype.itemsize

    def allocate(self) -> torch.Tensor:
        """Make a tensor for what is selected."""
        return torch.empty(self.shape, dtype=self._dtype)

    def direct(self, tensor: torch.Tensor) -> Iterator[Piece]:
        """The pieces that are received directly into ``tensor``."""
        if not tensor.numel():
            return
        if not self._index:
            yield Piece(self._start, memory_of(tensor))
        elif len(self._index) == 1:
            rows = range(self._stored_shape[0])[self._index[0]]
            view = memory_of(tensor)
            if rows.step == 1:
                yield Piece(self._start + rows[0] * self._row_bytes, view)
                return
            for number, place in enumerate(rows):
                begin = number * self._row_bytes
                yield Piece(self._start + place * self._row_bytes, view[begin : begin + self._row_bytes])
        elif self._row_bytes >= _LARGE_ROW:
            for row, part in self._rows(tensor):
                yield from row.direct(part)

    def staged(self, tensor: torch.Tensor) -> Iterator[tuple[list[Piece], Callable[[], None]]]:
        """Pieces that have more than is wanted, and what to call when they are filled, before the next are used."""
        if not tensor.numel() or len(self._index) < 2:
            return
        if self._row_bytes >= _LARGE_ROW:
            for row, part in self._rows(tensor):
                yield from row.staged(part)
            return
        rows = range(self._stored_shape[0])[self._index[0]]
        most = max(1, _STAGE // self._row_bytes)
        for first in range(0, len(rows), most):
            chosen = rows[first : first + most]
            stage = torch.empty((len(chosen), *self._stored_shape[1:]), dtype=self._dtype)
            whole_rows = (slice(chosen.start, chosen.stop, chosen.step),)
            pieces = list(Selection(self.name, self._dtype, self._stored_shape, self._start, whole_rows).direct(stage))
            columns = (slice(None), *self._index[1:])
            yield pieces, partial(_copy_columns, tensor[first : first + most], stage, columns)

    @property
    def _row_bytes(self) -> int:
        return math.prod(self._stored_shape[1:]) * self._dtype.itemsize

    def _rows(self, tensor: torch.Tensor) -> Iterator[tuple[Selection, torch.Tensor]]:
        """Each selected row of the first dimension: the selection of it, and its part of ``tensor``."""
        for number, row in enumerate(range(self._stored_shape[0])[self._index[0]]):
            start = self._start + row * self._row_bytes
            yield Selection(self.name, self._dtype, self._stored_shape[1:], start, self._index[1:]), tensor[number]


def _selects_all(index: slice, size: int) -> bool:
    return range(size)[index] == range(size)


def _copy_columns(destination: torch.Tensor, rows: torch.Tensor, columns: tuple[slice, ...]) -> None:
    destination.copy_(rows[columns])
