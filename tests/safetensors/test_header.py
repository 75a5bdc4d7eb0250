"""A header is compared with its file, and refused if it is false. The safetensors library is the oracle."""

from __future__ import annotations

import json
from typing import Any

import pytest
import safetensors
from hypothesis import given
from hypothesis import strategies as st

from s3torchconnector._errors import S3FormatError
from s3torchconnector._safetensors._header import LENGTH_BYTES, MAX_HEADER_BYTES, build, header_bytes, parse
from tests.safetensors.support import file_of


def _entry(dtype: Any = "F32", shape: Any = (2,), start: Any = 0, stop: Any = 8) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


def _parse(file: bytes) -> list[Any]:
    data_start = LENGTH_BYTES + header_bytes(file, len(file))
    return parse(file[LENGTH_BYTES:data_start], len(file) - data_start)


_LIES = {
    "beyond the file": (file_of({"a": _entry(stop=8)}, bytes(7)), "end 8 bytes after the header, but it has 7"),
    "not all of the file": (file_of({"a": _entry()}, bytes(9)), "it has 9 bytes there"),
    "data without tensors": (file_of({}, b"x"), "it has 1 bytes there"),
    "overlap": (file_of({"a": _entry(), "b": _entry(start=4, stop=12)}, bytes(12)), "'b' begins at 4.*overlaps"),
    "same bytes twice": (file_of({"a": _entry(), "b": _entry()}, bytes(8)), "overlaps"),
    "hole": (file_of({"a": _entry(), "b": _entry(start=12, stop=20)}, bytes(20)), "hole"),
    "hole at the beginning": (file_of({"a": _entry(start=4, stop=12)}, bytes(12)), "hole"),
    "wrong length": (file_of({"a": _entry(shape=[3])}, bytes(8)), "takes 12"),
    "stop before start": (file_of({"a": _entry(start=8, stop=0)}, bytes(8)), "-8 bytes"),
    "unknown type": (file_of({"a": _entry("F33")}, bytes(8)), "'F33'"),
    "type that is a list": (file_of({"a": _entry(["F32"])}, bytes(8)), "does not know"),
    "negative size": (file_of({"a": _entry(shape=[-1, -2])}, bytes(8)), "whole numbers"),
    "fractional size": (file_of({"a": _entry(shape=[2.0])}, bytes(8)), "whole numbers"),
    "boolean size": (file_of({"a": _entry(shape=[True, 2])}, bytes(8)), "whole numbers"),
    "huge size": (file_of({"a": _entry(shape=[2**64])}, bytes(8)), "whole numbers"),
    "sizes that overflow": (file_of({"a": _entry(shape=[2**32, 2**32, 2])}, bytes(8)), "more elements"),
    "empty, with strides that overflow": (file_of({"a": _entry(shape=[2**40, 2**40, 0], stop=0)}), "more elements"),
    "huge offsets": (file_of({"a": _entry(start=2**64, stop=2**64 + 8)}, bytes(8)), "data_offsets"),
    "negative offset": (file_of({"a": _entry(start=-8, stop=0)}, bytes(8)), "data_offsets"),
    "fractional offset": (file_of({"a": _entry(stop=8.0)}, bytes(8)), "data_offsets"),
    "three offsets": (file_of({"a": {**_entry(), "data_offsets": [0, 4, 8]}}, bytes(8)), "two whole numbers"),
    "half a byte": (file_of({"a": _entry("F4", [3], stop=1)}, bytes(1)), "byte boundary"),
    "no shape": (file_of({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, bytes(8)), "alone"),
    "something more": (file_of({"a": {**_entry(), "more": 1}}, bytes(8)), "alone"),
    "entry that is a number": (file_of({"a": 1}), "alone"),
    "metadata of numbers": (file_of({"__metadata__": {"a": 1}}), "object of strings"),
    "metadata that is a list": (file_of({"__metadata__": ["a"]}), "object of strings"),
    "twice the same name": (file_of(b'{"a":%b,"a":%b}' % ((json.dumps(_entry()).encode(),) * 2), bytes(8)), "twice"),
    "not JSON": (file_of(b"{" + b"x" * 20), "not valid JSON"),
    "JSON, then more": (file_of(b"{} x"), "not valid JSON"),
    "not UTF-8": (file_of(b'{"\xff": 1}'), "UTF-8"),
    "too deep": (file_of(b'{"a":' * 100_000), "not valid JSON"),
    "number of too many digits": (file_of(b'{"a":' + b"9" * 10_000 + b"}"), "not valid JSON"),
    "not a number": (file_of(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}', bytes(8)), "whole numbers"),
    "a list": (file_of(b"[]"), "not a JSON object"),
    "blank before it": (file_of(b" {}"), "not a JSON object"),
    "empty header": (file_of(b""), "not a JSON object"),
    "empty file": (b"", "0 bytes"),
    "7 bytes": (bytes(7), "7 bytes"),
    "header longer than the file": (file_of(b"{}", length=3), "only 2 more"),
    "header longer than allowed": (file_of(b"{}", length=MAX_HEADER_BYTES + 1), f"{MAX_HEADER_BYTES} it may have"),
    "header of 2**64 - 1 bytes": (file_of(b"{}", length=2**64 - 1), "it may have"),
}


@pytest.mark.parametrize("lie", _LIES)
def test_a_false_header_is_refused(lie: str) -> None:
    file, reason = _LIES[lie]
    with pytest.raises(S3FormatError, match=reason):
        _parse(file)


def _library(file: bytes) -> list[tuple[str, str, list[int], bytes]] | None:
    """What the safetensors library reads from a file; None if it refuses."""
    try:
        return sorted(
            (name, each["dtype"], each["shape"], bytes(each["data"])) for name, each in safetensors.deserialize(file)
        )
    except safetensors.SafetensorError:
        return None


_sizes = st.one_of(st.integers(0, 4), st.sampled_from([-1, 2**31, 2**63, 2**64, 1.0, True, None, "1"]))
_entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "BOOL", "C64", "F8_E5M2", "F4", "f32", "X"]),
        "shape": st.lists(_sizes, max_size=3),
        "data_offsets": st.lists(st.one_of(st.integers(0, 16), _sizes), min_size=1, max_size=3),
    }
)


@given(st.dictionaries(st.sampled_from("abc"), _entries, max_size=3), st.integers(0, 24))
def test_a_header_is_accepted_if_the_library_accepts_it(document: dict[str, Any], size: int) -> None:
    file = file_of(document, bytes(range(size)))
    expected = _library(file)
    try:
        entries = _parse(file)
    except S3FormatError:
        assert expected is None
    else:
        data = file[len(file) - size :]
        got = sorted((each.name, each.dtype, list(each.shape), data[each.start : each.stop]) for each in entries)
        assert got == expected


_dtypes = st.sampled_from(["F64", "F32", "BF16", "U8"])
_shapes = st.lists(st.integers(0, 3), max_size=3)


@given(st.dictionaries(st.text(max_size=8), st.tuples(_dtypes, _shapes), max_size=4), st.binary(max_size=300))
def test_built_headers_are_read_by_the_library(tensors: dict[str, tuple[str, list[int]]], noise: bytes) -> None:
    tensors.pop("__metadata__", None)
    header = build(((name, *each) for name, each in tensors.items()), {"a": "é"})
    size = max([0, *(each["data_offsets"][1] for each in json.loads(header[8:]).values() if "dtype" in each)])
    data = (noise * 300)[:size].ljust(size, b"x")
    assert _library(header + data) is not None
    assert [each.name for each in _parse(header + data)] == list(tensors)
    assert len(header) % 8 == 0


def test_a_header_longer_than_allowed_is_not_built() -> None:
    with pytest.raises(ValueError, match="at most 100000000 bytes"):
        build([], {"a": "x" * MAX_HEADER_BYTES})
