"""The header of a safetensors file: parsed and built. Pure. Everything that a header says is checked.

A file is the header's length (8 bytes, little-endian), the header (a JSON object), and the tensors' bytes without gaps.
https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from s3torchconnector._errors import S3FormatError

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_LARGEST = 2**63 - 1  # PyTorch cannot compute with larger sizes and offsets

BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
"""Bits of one element of each type that the format knows."""

TORCH_NAMES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
}
"""PyTorch's names of these types. It has no types of less than a byte."""


class Entry(NamedTuple):
    """One tensor: its name, type and shape, and its bytes, ``start`` up to ``stop`` counted from the header's end."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def header_bytes(prefix: bytes | memoryview, size: int) -> int:
    """Length in bytes of the header that follows the first 8 bytes of a file of ``size`` bytes.

    Raises:
        S3FormatError: it is longer than the file, or than the format allows.
    """
    if size < LENGTH_BYTES:
        raise S3FormatError(f"it has {size} bytes, fewer than the 8 with the header's length")
    length = int(struct.unpack_from("<Q", prefix)[0])
    if length > MAX_HEADER_BYTES:
        raise S3FormatError(f"its header claims {length} bytes, more than the {MAX_HEADER_BYTES} it may have")
    if length > size - LENGTH_BYTES:
        raise S3FormatError(f"its header claims {length} bytes, but the file has only {size - LENGTH_BYTES} more")
    return length


def parse(header: bytes, data_size: int) -> list[Entry]:
    """The tensors of a file that has ``data_size`` bytes after the header, in the order of their bytes.

    Raises:
        S3FormatError: the header is malformed, contradicts itself, or does not describe those bytes exactly.
    """
    document = _json(header)
    _check_metadata(document.pop("__metadata__", {}))
    entries = sorted((_entry(*item) for item in document.items()), key=lambda each: (each.start, each.stop))
    reached = 0
    for entry in entries:
        if entry.start != reached:
            wrong = "overlaps the tensor before it" if entry.start < reached else "leaves a hole before it"
            raise S3FormatError(f"{_of(entry.name)} begins at {entry.start}, not at {reached}: it {wrong}")
        reached = entry.stop
    if reached != data_size:
        raise S3FormatError(f"its tensors end {reached} bytes after the header, but it has {data_size} bytes there")
    return entries


def build(tensors: Iterable[tuple[str, str, Sequence[int]]], metadata: Mapping[str, str] | None) -> bytes:
    """Build the beginning of a file, length and header, from the (name, type, shape) of its tensors, in order.

    The header is padded with spaces to a multiple of 8 bytes, so that the tensors are aligned.

    Raises:
        ValueError: the header is longer than the format allows.
    """
    document: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    start = 0
    for name, dtype, shape in tensors:
        stop = start + _bytes_of(name, dtype, shape)
        document[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}
        start = stop
    header = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    if len(header) > MAX_HEADER_BYTES:
        raise ValueError(f"a safetensors header has at most {MAX_HEADER_BYTES} bytes, not {len(header)}")
    return struct.pack("<Q", len(header)) + header


def _json(header: bytes) -> dict[str, Any]:
    if not header.startswith(b"{"):
        raise S3FormatError(f"its header is not a JSON object: it begins with {header[:20]!r}")
    try:
        document = json.loads(header.decode(), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        if isinstance(error, S3FormatError):
            raise
        raise S3FormatError(f"its header is not valid JSON in UTF-8: {error}") from error
    assert isinstance(document, dict)
    return document


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise S3FormatError(f"its header has the name {twice[:80]!r} twice")
    return found


def _check_metadata(metadata: Any) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise S3FormatError("its __metadata__ is not an object of strings")


def _entry(name: str, value: Any) -> Entry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise S3FormatError(f"{_of(name)} is not described by dtype, shape and data_offsets alone")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise S3FormatError(f"{_of(name)} has the type {str(dtype)[:40]!r}, which the format does not know")
    if not _are_sizes(shape):
        raise S3FormatError(f"{_of(name)} has the shape {str(shape)[:80]}: sizes must be whole numbers, 0 or more")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise S3FormatError(
            f"{_of(name)} has the data_offsets {str(offsets)[:80]}: they must be two whole numbers, 0 or more"
        )
    start, stop = offsets
    needed = _bytes_of(name, dtype, shape)
    if stop - start != needed:
        raise S3FormatError(
            f"{_of(name)} has {stop - start} bytes, from {start} to {stop}, but {dtype} of shape {str(shape)[:80]} "
            f"takes {needed}"
        )
    return Entry(name, dtype, tuple(shape), start, stop)


def _are_sizes(values: Any) -> bool:
    # To Python, a bool is an int. To JSON, true is not a number.
    return isinstance(values, list) and all(type(each) is int and 0 <= each <= _LARGEST for each in values)


def _bytes_of(name: str, dtype: str, shape: Sequence[int]) -> int:
    count, strides = 1, 1
    for size in shape:
        count *= size
        # PyTorch computes the strides of empty tensors too. They must not overflow.
        strides *= max(size, 1)
        if strides > _LARGEST // 8:
            raise S3FormatError(f"{_of(name)} has more elements than fit into a file: shape {str(shape)[:80]}")
    if count * BITS[dtype] % 8:
        raise S3FormatError(f"{_of(name)} of type {dtype} and shape {str(shape)[:80]} does not end at a byte boundary")
    return count * BITS[dtype] // 8


def _of(name: str) -> str:
    return f"its tensor {name[:80]!r}"
