"""Finds the data of a tensor in what ``torch.save`` wrote, from its first bytes. Pure.

Such an item is a zip archive without compression: ``data.pkl`` describes the tensor, and ``data/0`` is its storage as
it is in memory. The order of these records is the same in all versions that write zip archives; the bytes between them
differ. ``torch.load`` reads the items that this module does not understand.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from s3torchconnector._transfer import Range

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # APPNOTE.TXT 4.3.7
_SIGNATURE = b"PK\x03\x04"
_STORED = 0
_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
}  # by the names that descriptions have; the classes themselves warn when they are asked for their type
# The opcodes of descriptions. Some others make the unpickler allocate memory by a number, which may be damaged.
_OPCODES = {
    "PROTO",
    "STOP",
    "MARK",
    "GLOBAL",
    "REDUCE",
    "BINPERSID",
    "BINUNICODE",
    "BINPUT",
    "BINGET",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "NEWTRUE",
    "NEWFALSE",
    "NONE",
    "EMPTY_TUPLE",
    "TUPLE",
    "TUPLE1",
    "TUPLE2",
    "TUPLE3",
    "EMPTY_DICT",
    "EMPTY_LIST",
}
_DESCRIPTION, _STORAGE, _BYTE_ORDER = "/data.pkl", "/data/0", "/byteorder"


@dataclass(frozen=True)
class TensorLayout:
    """A contiguous tensor of ``shape`` whose first element is byte ``start`` of the item."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def stop(self) -> int:
        """The position after the last element."""
        return self.start + _product(self.shape) * self.dtype.itemsize

    def slice_of(self, offsets: Sequence[int], lengths: Sequence[int]) -> Range | None:
        """The bytes of a slice of the item; None if other elements lie between those of the slice."""
        if len(offsets) != len(self.shape) or len(lengths) != len(self.shape):
            return None
        whole = True  # whether all dimensions after this one are taken whole
        stride, first = 1, 0
        for size, offset, length in reversed(list(zip(self.shape, offsets, lengths, strict=True))):
            if offset < 0 or offset + length > size or (not whole and length != 1):
                return None
            whole = whole and length == size
            first += offset * stride
            stride *= size
        start = self.start + first * self.dtype.itemsize
        return Range(start, start + _product(lengths) * self.dtype.itemsize)


def layout_of(head: bytes, length: int) -> TensorLayout | None:
    """The layout of an item of ``length`` bytes that begins with ``head``; None if it is not a plain tensor.

    Never raises, and runs no code that the item names.
    """
    try:
        layout = _parse(head)
    except (_NotSimpleError, struct.error, pickle.UnpicklingError, ValueError, TypeError, IndexError, EOFError):
        return None
    except (AttributeError, KeyError, OverflowError, UnicodeDecodeError):
        return None
    return layout if layout.stop <= length else None


class _NotSimpleError(Exception):
    pass


def _parse(head: bytes) -> TensorLayout:
    name, start = _record(head, 0)
    if not name.endswith(_DESCRIPTION):
        raise _NotSimpleError
    root = name.removesuffix(_DESCRIPTION)
    position = head.find(_SIGNATURE, start)
    dtype, shape = _described(head[start:position])
    while True:
        position = head.find(_SIGNATURE, position)
        if position < 0:
            raise _NotSimpleError
        name, start = _record(head, position)
        if name == root + _STORAGE:
            return TensorLayout(dtype, shape, start)
        if name == root + _BYTE_ORDER and head[start : start + 6] != b"little":
            raise _NotSimpleError
        position = start


@lru_cache(maxsize=1024)
def _described(description: bytes) -> tuple[torch.dtype, tuple[int, ...]]:
    """What ``data.pkl`` says. Bytes may follow it. Cached: the layers of a model have the same descriptions."""
    if not all(opcode.name in _OPCODES for opcode, _, _ in pickletools.genops(description)):
        raise _NotSimpleError
    return _Description(io.BytesIO(description)).tensor()


def _record(head: bytes, position: int) -> tuple[str, int]:
    """The name of the record whose header is at ``position``, and where its bytes begin."""
    signature, _, _, method, _, _, _, _, _, name_size, extra_size = _LOCAL_HEADER.unpack_from(head, position)
    name_start = position + _LOCAL_HEADER.size
    if signature != _SIGNATURE or method != _STORED or name_start + name_size > len(head):
        raise _NotSimpleError
    return head[name_start : name_start + name_size].decode(), name_start + name_size + extra_size


class _Description(pickle.Unpickler):
    """Reads ``data.pkl`` without making a tensor: the names that it may have are those of functions of this module."""

    def tensor(self) -> tuple[torch.dtype, tuple[int, ...]]:
        found = self.load()
        if not isinstance(found, _Found):
            raise _NotSimpleError
        return found.dtype, found.shape

    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) in _REBUILD:
            return _REBUILD[module, name]
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        named = getattr(torch, name, None) if module == "torch" else None
        if isinstance(named, torch.dtype):
            return named
        if module == "torch" and name in _STORAGES:
            return _StorageOf(_STORAGES[name])
        if (module, name) == ("torch.storage", "UntypedStorage"):
            return _StorageOf(None)
        raise _NotSimpleError

    def persistent_load(self, pid: Any, /) -> Any:
        kind, storage, key, _, count = pid
        if kind != "storage" or key != "0" or not isinstance(storage, _StorageOf):
            raise _NotSimpleError
        return storage, count


@dataclass(frozen=True)
class _StorageOf:
    """Stands for a storage class. ``dtype`` is None if the storage does not tell the type of its elements."""

    dtype: torch.dtype | None


@dataclass(frozen=True)
class _Found:
    dtype: torch.dtype
    shape: tuple[int, ...]


def _rebuild_v2(
    storage: tuple[_StorageOf, int], offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *more: Any
) -> _Found:
    kind, count = storage
    if kind.dtype is None or any(more[2:]):  # after requires_grad and hooks: more than the numbers
        raise _NotSimpleError
    return _found(kind.dtype, count, offset, shape, stride)


def _rebuild_v3(
    storage: tuple[_StorageOf, int], offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *more: Any
) -> _Found:
    dtype = more[2]
    if not isinstance(dtype, torch.dtype) or any(more[3:]):
        raise _NotSimpleError
    return _found(dtype, storage[1] // dtype.itemsize, offset, shape, stride)


_REBUILD = {("torch._utils", "_rebuild_tensor_v2"): _rebuild_v2, ("torch._utils", "_rebuild_tensor_v3"): _rebuild_v3}


def _found(dtype: torch.dtype, count: int, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> _Found:
    """A tensor, if it fills its storage, element after element."""
    expected, strides = 1, []
    for size in reversed(shape):
        strides.append(expected)
        expected *= size
    dense = all(size == 1 or got == want for size, got, want in zip(shape, stride, reversed(strides), strict=True))
    if offset != 0 or count != expected or not dense or any(size < 1 for size in shape):
        raise _NotSimpleError
    return _Found(dtype, tuple(shape))


def _product(factors: Sequence[int]) -> int:
    result = 1
    for factor in factors:
        result *= factor
    return result
