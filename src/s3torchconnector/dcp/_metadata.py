"""Reading ``.metadata``, which is a pickle, without running code that it names.

A pickle may name any function to be called. So anyone who can write to the bucket could run code in every program that
saves to it or loads from it. This module finds only classes that describe a checkpoint, in any release of PyTorch from
2.4 on: ``Metadata`` and its parts, types of Python's own, and what the program itself has declared safe
(``torch.serialization.add_safe_globals``), such as the class of a state's keys. When they are made, they only keep what
they are given.

A load is refused if the pickle contains another name. A save needs only the names of the files, so it leaves everything
else empty.
"""

from __future__ import annotations

import builtins
import collections
import enum
import io
import pathlib
import pickle
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.distributed._shard.sharded_tensor import metadata as sharded
from torch.distributed.checkpoint import filesystem, metadata

from s3torchconnector._garbage import no_garbage_collection

_BUILTINS = frozenset(
    {"bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "range", "set", "slice",
     "str", "tuple"}
)  # fmt: skip
_TORCH = (torch.dtype, torch.layout, torch.memory_format)
_CLASSES: dict[tuple[str, str], Any] = {
    ("builtins", "getattr"): lambda kind, name: _member(kind, name),
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("torch.serialization", "_get_layout"): lambda name: _layout(name),
    ("torch.distributed._shard.sharded_tensor.metadata", "TensorProperties"): sharded.TensorProperties,
    ("torch.distributed._shard.sharded_tensor.metadata", "MEM_FORMAT_ENCODING"): sharded.MEM_FORMAT_ENCODING,
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"): filesystem._StorageInfo,
    ("torch.distributed.checkpoint.filesystem", "_StoragePrefix"): filesystem._StoragePrefix,
}


def parse_metadata(data: bytes) -> metadata.Metadata:
    """Read the description of a checkpoint.

    Raises:
        pickle.UnpicklingError: it has a name that is not allowed. Nothing was called.
        Exception: it is not a pickle, or not of a ``Metadata``.
    """
    return _described(_Unpickler(io.BytesIO(data)))


def parse_storage_data(data: bytes) -> Mapping[Any, Any]:
    """Read the positions of the items of a checkpoint, even if its description contains other names.

    Raises:
        Exception: it is not a pickle, or not of a ``Metadata``.
    """
    return _described(_NamesUnpickler(io.BytesIO(data))).storage_data or {}


def _described(unpickler: pickle.Unpickler) -> metadata.Metadata:
    with no_garbage_collection():
        described = unpickler.load()
    if not isinstance(described, metadata.Metadata):
        raise pickle.UnpicklingError(f"it is a {type(described).__name__}, not a description of a checkpoint")
    return described


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _CLASSES.get((module, name)) or _found(module, name)
        if found is not None:
            return found
        raise pickle.UnpicklingError(
            f"it names {module}.{name}, which no description of a checkpoint needs, and which could run code. If it "
            "is a class of yours (such as that of a state's keys), and you trust what is in the bucket, declare it "
            f"first: torch.serialization.add_safe_globals([{module}.{name}])"
        )


class _NamesUnpickler(_Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):
            return lambda kind, name: _Unknown() if kind is _Unknown else _member(kind, name)
        return _CLASSES.get((module, name)) or _found(module, name) or _Unknown


class _Unknown:
    """A placeholder for any object that a pickle makes by a name that is not allowed. It accepts everything and does
    nothing.
    """

    def __new__(cls, *_: Any, **__: Any) -> _Unknown:
        return super().__new__(cls)

    def __setstate__(self, _: Any) -> None:
        """Do nothing, as all other methods."""

    def __setitem__(self, _: Any, __: Any) -> None: ...

    def append(self, _: Any) -> None: ...

    def extend(self, _: Any) -> None: ...

    def add(self, _: Any) -> None: ...


def _found(module: str, name: str) -> Any:
    """The object of a name that not all releases have; None if the name is not allowed."""
    if module == "builtins" and name in _BUILTINS:
        return getattr(builtins, name)
    if module == "torch" and isinstance(getattr(torch, name, None), _TORCH):
        return getattr(torch, name)
    if module in ("pathlib", "pathlib._local"):  # the checkpoint's path, maybe of another operating system
        pure = {"PosixPath": "PurePosixPath", "WindowsPath": "PureWindowsPath", "Path": "PurePath"}.get(name, name)
        return getattr(pathlib, pure) if pure in ("PurePath", "PurePosixPath", "PureWindowsPath") else None
    if module == metadata.__name__:
        found = getattr(metadata, name, None)
        return found if isinstance(found, type) and found.__module__ == module else None
    return next((each for place, each in _declared_safe() if place == f"{module}.{name}"), None)


def _declared_safe() -> Iterator[tuple[str, Any]]:
    """What the program has declared safe, by its full name. PyTorch takes a class, or a class and another name."""
    get = getattr(torch.serialization, "get_safe_globals", tuple)
    for each in get():
        yield (each[1], each[0]) if isinstance(each, tuple) else (f"{each.__module__}.{each.__qualname__}", each)


def _member(kind: Any, name: str) -> enum.Enum:
    """``getattr``, which Python 3.11 uses to pickle the members of an enumeration."""
    if isinstance(kind, type) and issubclass(kind, enum.Enum) and name in kind.__members__:
        return kind.__members__[name]
    raise pickle.UnpicklingError(f"it names {name!r} of {kind!r}, which is not a member of an enumeration")


def _layout(name: str) -> torch.layout:
    found = getattr(torch, name.removeprefix("torch."), None)
    if not isinstance(found, torch.layout):
        raise pickle.UnpicklingError(f"it names the layout {name!r}, which does not exist")
    return found
