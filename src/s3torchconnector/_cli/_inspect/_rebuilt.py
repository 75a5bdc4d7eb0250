"""The tensors in what ``torch.save`` pickled: their names, types and shapes, and which storages they are in. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from s3torchconnector._cli._inspect._description import Tensor, item_size
from s3torchconnector._cli._inspect._pickles import Made, dtype_in, path_of, shortened, sizes_in
from s3torchconnector._errors import S3FormatError

_DEEPEST = 1000
_LONGEST_NAME = 1000  # what is in what is in something has the names of all of them
_UTILS = "torch._utils."
_IN_STORAGES = {f"{_UTILS}_rebuild_{name}" for name in ("tensor", "tensor_v2", "tensor_v3", "qtensor")}
_WITHOUT_DATA = f"{_UTILS}_rebuild_meta_tensor_no_storage"  # on the device "meta"
_WRAPPERS = (f"{_UTILS}_rebuild_parameter", f"{_UTILS}_rebuild_parameter_with_state")
_FROM_TYPE = ("torch._tensor._rebuild_from_type", "torch._tensor._rebuild_from_type_v2")
_LEFT_OUT = ("_parameters", "_buffers", "_modules")  # so that names are those of a state_dict
_STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64",
    "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool", "Untyped": "uint8",
    "ComplexDouble": "complex128", "ComplexFloat": "complex64", "QUInt8": "quint8", "QInt8": "qint8",
    "QInt32": "qint32", "QUInt4x2": "quint4x2", "QUInt2x4": "quint2x4",
}  # fmt: skip


class Storage(NamedTuple):
    """The memory of tensors, stored as a record of its own.

    Attributes:
        key: the record's name.
        dtype: of its elements; tensors of newer types say theirs themselves.
        elements: how many.
    """

    key: str
    dtype: str
    elements: int

    @property
    def bytes(self) -> int:
        return self.elements * item_size(self.dtype)


class _Found(NamedTuple):
    """A tensor as the pickle describes it; ``storage`` is None if it has no data."""

    dtype: str
    shape: tuple[int, ...]
    storage: Storage | None = None
    offset: int = 0
    strides: tuple[int, ...] = ()

    @property
    def last_byte(self) -> int:
        """Where in its storage it ends."""
        if 0 in self.shape:
            return 0
        steps = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        return (self.offset + steps + 1) * item_size(self.dtype)


def storage_of(pid: Any) -> Storage:
    """The storage that a pickle refers to.

    Raises:
        S3FormatError: it refers to something else.
    """
    if isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage" and type(pid[4]) is int and pid[4] >= 0:
        name = path_of(pid[1]).rpartition(".")[2].removesuffix("Storage")
        if isinstance(pid[2], str) and name in _STORAGES:
            return Storage(pid[2], _STORAGES[name], pid[4])
    raise S3FormatError(f"its pickle refers to {shortened(pid)}, which is no storage of tensors")


def tensors_in(pickled: Any, records: dict[str, int], problems: list[str]) -> list[Tensor]:
    """All tensors, in the order in which they were pickled.

    Args:
        pickled: what ``described`` returned.
        records: the storages that there are, with their sizes in bytes.
        problems: takes what is wrong, in words.

    Raises:
        S3FormatError: the description of a tensor makes no sense.
    """
    tensors: list[Tensor] = []
    known: dict[_Found, str] = {}
    for name, found in _walk(pickled):
        data = 0 if found.storage is None else math.prod(found.shape) * item_size(found.dtype)
        if found.storage is not None:
            there = records.get(found.storage.key)
            if there is None:
                problems.append(f"{name} is in the record data/{found.storage.key}, which is missing")
            elif max(found.last_byte, found.storage.bytes) > there:
                needed = max(found.last_byte, found.storage.bytes)
                problems.append(f"{name} needs {needed} bytes of data/{found.storage.key}, which has only {there}")
        first = known.setdefault(found, name) if found.storage is not None else name
        tensors.append(Tensor(name, found.dtype, found.shape, data, same_as=None if first is name else first))
    return tensors


def _walk(pickled: Any) -> Iterator[tuple[str, _Found]]:
    """Every tensor and its name. Nothing is looked into twice, so that what contains itself comes to an end."""
    left: list[tuple[str, Any, int]] = [("", pickled, 0)]
    seen: set[int] = set()
    while left:
        name, value, depth = left.pop()
        found = _tensor(value, name)
        if found is not None:
            yield name, found
            continue
        if id(value) in seen:
            continue
        seen.add(id(value))
        if depth > _DEEPEST:
            raise S3FormatError(f"its pickle is nested more than {_DEEPEST} deep")
        inside = [(_joined(name, key), each, depth + 1) for key, each in _inside(value)]
        left += reversed(inside)


def _joined(name: str, key: Any) -> str:
    text = "" if key is None or key in _LEFT_OUT else str(key) if isinstance(key, str | int | float) else path_of(key)
    joined = f"{name}.{text}" if name and text else name or text
    return (
        joined if len(joined) <= _LONGEST_NAME else f"{joined[: _LONGEST_NAME // 2]}...{joined[-_LONGEST_NAME // 2 :]}"
    )


def _inside(value: Any) -> Iterator[tuple[Any, Any]]:
    """What is inside, each with its key; None if it has the name of what it is in."""
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list | tuple):
        yield from enumerate(value)
    elif isinstance(value, Made):
        if value.path in _WRAPPERS:
            yield None, value.args[:1] and value.args[0]
            return
        if value.path in _FROM_TYPE and len(value.args) > 3:
            function, _, args, state = value.args[:4]
            if path_of(function) and isinstance(args, tuple):
                yield None, function(*args)
            yield None, state
            return
        pairs = value.args[0] if value.path.endswith("OrderedDict") and value.args else []
        if isinstance(pairs, list | tuple):
            yield from ((pair[0], pair[1]) for pair in pairs if isinstance(pair, list | tuple) and len(pair) == 2)
        yield from value.pairs
        yield from enumerate(value.values)
        yield None, value.state
        if not value.path.endswith("OrderedDict"):
            yield from enumerate(value.args)


def _tensor(value: Any, name: str) -> _Found | None:
    """The tensor that a value is; None if it is something else."""
    if not isinstance(value, Made):
        return None
    if value.path in _IN_STORAGES:
        found = _in_storage(value)
    elif value.path == _WITHOUT_DATA:
        dtype, *rest = value.args or (None,)
        found = _described(dtype_in(dtype), sizes_in(rest[0]) if rest else None)
    else:
        return None
    if found is None:
        raise S3FormatError(f"its pickle makes {name!r:.100} by {value.path} of {shortened(value.args)}, no tensor")
    return found


def _in_storage(value: Made) -> _Found | None:
    storage, offset, size, stride, *rest = (*value.args, *[None] * 4)[: max(4, len(value.args))]
    shape, strides = sizes_in(size), sizes_in(stride)
    if not isinstance(storage, Storage) or type(offset) is not int or shape is None or strides is None:
        return None
    dtype = dtype_in(rest[2]) if value.path.endswith("_v3") and len(rest) > 2 else storage.dtype
    found = _described(dtype, shape)
    if found is None or len(strides) != len(shape) or offset < 0:
        return None
    return found._replace(storage=storage, offset=offset, strides=strides)


def _described(dtype: str | None, shape: tuple[int, ...] | None) -> _Found | None:
    try:
        item_size(dtype or "")
    except ValueError:
        return None
    return None if dtype is None or shape is None else _Found(dtype, shape)
