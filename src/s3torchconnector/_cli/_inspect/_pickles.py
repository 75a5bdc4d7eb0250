"""Pickles, read without running them.

A pickle may name any function to be called. Here, every name becomes our own class, which keeps its arguments. So the
result is a description: "``torch._utils._rebuild_tensor_v2`` of this storage, that shape". Nothing that the pickle
names is imported, let alone called.

The unpickler is the one of the standard library that is written in Python. The one in C allocates memory for as many
objects as a pickle of a few bytes claims to have, which may be more than the machine has.

A few bytes can also say "a tuple that has the one before twice" sixty times. Code that visits all of it never ends, and
if it is in C, Ctrl-C does not end it. So tuples are compared by identity (``_Tuple``), errors quote by ``shortened``,
and numbers are short enough to print.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

from s3torchconnector._errors import S3FormatError
from s3torchconnector._garbage import no_garbage_collection

_LONGEST_NUMBER = 1024  # bytes; Python prints numbers of up to 1785
_MOST_SIZES = 64  # of a shape, so that their product is a number that can be printed
_LARGEST_SIZE = 2**63 - 1
_LONGEST_TEXT = 200
_MOST_ELEMENTS = 8
_DEEPEST = 3


class Made:
    """What a pickle makes by a name: an object of a class, or the result of a function.

    Attributes:
        path: the name, with its module: ``collections.OrderedDict``.
        args: what it is made of.
        state: what is set afterwards: the attributes, mostly a dict.
        pairs: key and value of what is put into it, if it is a mapping.
        values: what is added to it, if it is a list or a set.
    """

    __slots__ = ("args", "pairs", "state", "values")
    path: ClassVar[str] = ""
    args: tuple[Any, ...]
    state: Any
    pairs: Sequence[tuple[Any, Any]]
    values: Sequence[Any]

    def __new__(cls, *args: Any, **named: Any) -> Made:
        made = super().__new__(cls)
        made.args, made.state = (*args, *named.values()) if named else args, None
        made.pairs = made.values = ()  # there may be millions of objects, and few have any
        return made

    def __call__(self, *args: Any) -> Made:
        return Made(*args)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.pairs = self.pairs if isinstance(self.pairs, list) else []
        self.pairs.append((key, value))

    def append(self, value: Any) -> None:
        """As of a list. ``add`` is that of a set."""
        self.extend((value,))

    add = append

    def extend(self, values: Any) -> None:
        """As of a list."""
        self.values = self.values if isinstance(self.values, list) else []
        self.values.extend(values)


class _Tuple(tuple[Any, ...]):
    """A tuple whose hash, as a key, does not take its elements: they may be nested without limit."""

    __slots__ = ()
    __hash__ = object.__hash__
    __eq__ = object.__eq__


def _load_tuple(unpickler: Any) -> None:
    items = unpickler.pop_mark()  # which changes ``append``
    unpickler.append(_Tuple(items))


def _load_last(unpickler: Any, count: int) -> None:
    unpickler.stack[-count:] = [_Tuple(unpickler.stack[-count:])]


def _load_bytearray(unpickler: Any) -> None:
    """Python's makes room for as many bytes as the pickle claims."""
    unpickler.append(bytearray(unpickler.read(int.from_bytes(unpickler.read(8), "little"))))


def _load_long_number(unpickler: Any) -> None:
    data = unpickler.read(int.from_bytes(unpickler.read(4), "little"))
    is_short = len(data) <= _LONGEST_NUMBER
    unpickler.append(int.from_bytes(data, "little", signed=True) if is_short else Made(f"{len(data)} bytes"))


def _load_frame(unpickler: Any) -> None:
    """A frame says only how many bytes may be read at a time, and all are here."""
    unpickler.read(8)


class _Unpickler(pickle._Unpickler):
    dispatch: ClassVar = {
        **pickle._Unpickler.dispatch,
        pickle.TUPLE[0]: _load_tuple,
        pickle.TUPLE1[0]: partial(_load_last, count=1),
        pickle.TUPLE2[0]: partial(_load_last, count=2),
        pickle.TUPLE3[0]: partial(_load_last, count=3),
        pickle.BYTEARRAY8[0]: _load_bytearray,
        pickle.LONG4[0]: _load_long_number,
        pickle.FRAME[0]: _load_frame,
    }

    def __init__(self, data: bytes, persistent: Callable[[Any], Any] | None) -> None:
        file = io.BytesIO(data)
        super().__init__(file)
        self.read, self.readline = file.read, file.readline
        self._persistent = persistent
        self._classes: dict[str, type[Made]] = {}

    def load(self) -> Any:
        """As the standard library's, whose reading of frames takes a third of the time."""
        self.metastack: list[list[Any]] = []
        self.stack: list[Any] = []
        self.append = self.stack.append
        self.proto = 0
        read: Callable[[int], bytes] = self.read
        dispatch: dict[int, Callable[[Any], None]] = self.dispatch
        try:
            while code := read(1):
                dispatch[code[0]](self)
        except pickle._Stop as stop:  # type: ignore[attr-defined]
            return stop.value
        raise EOFError("it ends early")

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("builtins", "getattr"), ("__builtin__", "getattr")):
            return _Attribute(self._named)  # which is how nested classes, and members of enumerations, are named
        return self._named(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        if self._persistent is None:
            raise pickle.UnpicklingError("it refers to something outside of it")
        return self._persistent(pid)

    def _named(self, path: str) -> type[Made]:
        if path not in self._classes:
            self._classes[path] = type("Made", (Made,), {"path": path, "__slots__": ()})
        return self._classes[path]


class _Attribute:
    """``getattr``, of names alone."""

    __slots__ = ("_named",)

    def __init__(self, named: Callable[[str], type[Made]]) -> None:
        self._named = named

    def __call__(self, owner: Any, name: Any) -> type[Made]:
        return self._named(f"{path_of(owner)}.{name}")


def described(data: bytes, persistent: Callable[[Any], Any] | None = None) -> Any:
    """The result of a pickle: dicts, lists, texts and numbers unchanged, everything else as ``Made``.

    Args:
        data: the pickle.
        persistent: what stands for what is stored outside of the pickle, from its id.

    Raises:
        S3FormatError: it is damaged, or no pickle.
    """
    try:
        with no_garbage_collection():
            return _Unpickler(data, persistent).load()
    except S3FormatError:
        raise
    except Exception as error:  # whatever unpickling any bytes may raise
        raise S3FormatError(f"its pickle cannot be read ({type(error).__name__}: {error!s:.200})") from error


def path_of(value: Any) -> str:
    """The name that a pickle has for a class or a value; empty if it has none."""
    is_made = isinstance(value, Made) or (isinstance(value, type) and issubclass(value, Made))
    return str(value.path) if is_made else ""


def shortened(value: Any, deepest: int = _DEEPEST) -> str:
    """What a pickle made, for the text of an error: some of it, however much there is."""
    if isinstance(value, list | tuple):
        inside = (shortened(each, deepest - 1) for each in value[:_MOST_ELEMENTS])
        text = f"({', '.join(inside)})" if deepest else "(...)"
    elif isinstance(value, str | int | float | bytes) or value is None:
        text = repr(value[:_LONGEST_TEXT] if isinstance(value, str | bytes) else value)
    else:
        text = path_of(value) or type(value).__name__
    return text[:_LONGEST_TEXT]


def attribute(value: Any, name: str, position: int) -> Any:
    """An attribute of an object, by its name, or its place if the state is a sequence; None if it has none."""
    state = value.state if isinstance(value, Made) else None
    if isinstance(state, dict):
        return state.get(name)
    return state[position] if isinstance(state, list | tuple) and position < len(state) else None


def sizes_in(value: Any) -> tuple[int, ...] | None:
    """A shape: numbers in a tuple, a list or a ``torch.Size``; None if it is something else."""
    if isinstance(value, Made):
        value = value.args[0] if value.path == "torch.Size" and value.args else None
    if not isinstance(value, list | tuple) or len(value) > _MOST_SIZES:
        return None
    if not all(type(size) is int and 0 <= size <= _LARGEST_SIZE for size in value):
        return None
    return tuple(value)


def dtype_in(value: Any) -> str | None:
    """A type of PyTorch's, without ``torch.``; None if it is something else."""
    path = path_of(value)
    return path.removeprefix("torch.") if path.startswith("torch.") and path.count(".") == 1 else None
