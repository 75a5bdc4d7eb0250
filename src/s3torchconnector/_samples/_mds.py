"""The samples of MDS shards, decoded as the format says. Pure.

A sample begins with the sizes of its values of variable size, u32 each, in the order of the columns; then come all
values. The encodings are those of MosaicML Streaming:
https://docs.mosaicml.com/projects/streaming/en/stable/preparing_datasets/dataset_format.html. All numbers are
little-endian. Images, pickles and unknown encodings remain bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

from s3torchconnector._late_imports import no_fork

_SCALARS = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
_NUMBERS_OF_TYPES = {  # in arrays whose type is not the column's
    8: "uint8", 9: "int8", 16: "uint16", 17: "int16", 18: "float16", 32: "uint32", 33: "int32", 34: "float32",
    64: "uint64", 65: "int64", 66: "float64",
}  # fmt: skip

Decoder = Callable[[bytes], Any]


class Column(NamedTuple):
    """A column of a shard: its name, its encoding, and the size of its values; None or 0 if that varies."""

    name: str
    encoding: str
    size: int | None


class SampleDecoder:
    """Decodes the samples of shards that have the same columns.

    Raises:
        ImportError: a column has numbers or arrays of NumPy, which is not installed.
        ValueError: an encoding makes no sense.
    """

    def __init__(self, columns: Iterable[Column]) -> None:
        self._columns = list(columns)
        self._decoders = [_decoder_of(column.encoding) for column in self._columns]
        self._sizes = struct.Struct(f"<{sum(not column.size for column in self._columns)}I")

    def __call__(self, data: bytes) -> dict[str, Any]:
        """The values of a sample by the names of their columns.

        Raises:
            ValueError, struct.error, KeyError, IndexError, ArithmeticError: these bytes are no such sample.
        """
        varying = iter(self._sizes.unpack_from(data))
        sizes = (column.size or next(varying) for column in self._columns)
        ends = list(accumulate(sizes, initial=self._sizes.size))
        if ends[-1] != len(data):
            raise ValueError(f"its values end at byte {ends[-1]} of {len(data)}")
        places = zip(self._columns, self._decoders, ends[:-1], ends[1:], strict=True)
        return {column.name: decode(data[start:stop]) for column, decode, start, stop in places}


def _decoder_of(encoding: str) -> Decoder:
    name, _, settings = encoding.partition(":")
    if name in _SCALARS:
        return partial(_scalar, numpy_module(), name)
    if name == "ndarray":
        kind, _, shape = settings.partition(":")
        if kind and kind not in _SCALARS:
            raise ValueError(f"it has arrays of {kind!r}")
        return partial(_array, numpy_module(), kind, tuple(map(int, shape.split(","))) if shape else ())
    return _DECODERS.get(name, bytes)


def numpy_module() -> Any:
    """NumPy.

    Raises:
        ImportError: it is not installed.
    """
    try:
        with no_fork:
            import numpy
    except ImportError as error:
        raise ImportError("numbers and arrays of MDS shards need NumPy: pip install numpy") from error
    return numpy


def _integer(data: bytes) -> int:
    value: int = struct.unpack("<q", data)[0]
    return value


def _text(data: bytes) -> str:
    return str(data, "utf-8")


def _scalar(numpy: Any, kind: str, data: bytes) -> Any:
    [value] = numpy.frombuffer(data, kind)
    return value


def _array(numpy: Any, kind: str, shape: tuple[int, ...], data: bytes) -> Any:
    """An array. Without a type or a shape of the column, the value begins with its own."""
    at = 0
    if not kind:
        kind, at = _NUMBERS_OF_TYPES[data[0]], 1
    if not shape:
        axes, width = data[at] >> 2, 1 << (data[at] & 3)
        ends = range(at + 1, at + 1 + (axes + 1) * width, width)
        shape = tuple(int.from_bytes(data[i : i + width], "little") for i in ends[:axes])
        at += 1 + axes * width
    return numpy.frombuffer(data, kind, offset=at).reshape(shape).copy()  # which, unlike the bytes, can be changed


_DECODERS: dict[str, Decoder] = {
    "str": _text,
    "int": _integer,
    "json": json.loads,
    "str_int": lambda data: int(_text(data)),
    "str_float": lambda data: float(_text(data)),
    "str_decimal": lambda data: Decimal(_text(data)),
}
