"""Byte ranges as arithmetic."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3torchconnector._errors import S3ProtocolError
from s3torchconnector._transfer.engine._ranges import ContentRange, Range, parse_content_range, split_on_grid


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 100))
def test_split_on_grid(start: int, stop: int, step: int) -> None:
    pieces = list(split_on_grid(start, stop, step))
    assert [byte for piece in pieces for byte in range(*piece)] == list(range(start, stop))
    assert all(0 < piece.size <= step for piece in pieces)
    assert all(piece.start % step == 0 for piece in pieces[1:])
    assert all(piece.start // step == (piece.stop - 1) // step for piece in pieces)


@given(st.integers(0, 10**18), st.integers(0, 10**18), st.integers(1, 10**18))
def test_a_content_range_round_trips(first: int, more: int, behind: int) -> None:
    stop, size = first + more + 1, first + more + behind
    assert parse_content_range(f"bytes {first}-{stop - 1}/{size}") == ContentRange(first, stop, size)


def test_an_unsatisfied_content_range() -> None:
    assert parse_content_range("bytes */0") == ContentRange(0, 0, 0)
    assert parse_content_range("bytes */123") == ContentRange(0, 0, 123)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bytes",
        "bytes 0-9",
        "bytes 0-9/*",
        "bytes 0-9/10 ",
        " bytes 0-9/10",
        "bytes=0-9/10",
        "items 0-9/10",
        "bytes -9/10",
        "bytes 0-/10",
        "bytes 5-4/10",
        "bytes 0-10/10",
        "bytes 10-10/10",
        "bytes +1-2/3",
        "bytes 0x1-2/3",
        "bytes 0-9/10, 20-29/30",
        "bytes \u0663-\u0664/\u0665",
        "bytes 0-1/99999999999999999999",
    ],
)
def test_a_malformed_content_range(text: str) -> None:
    with pytest.raises(S3ProtocolError, match="Content-Range"):
        parse_content_range(text)


def test_a_range_has_a_size() -> None:
    assert Range(3, 10).size == 7
    assert Range(3, 4)
    assert not Range(3, 3)


def test_unpacking_a_range_takes_no_memory_for_its_bytes() -> None:
    wanted = Range(0, 2**30)
    tracemalloc.start()
    try:
        assert max(*wanted, 5) == 2**30
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_the_length_of_a_range_is_an_error() -> None:
    """It would be taken for how many numbers a range has."""
    with pytest.raises(TypeError, match="size"):
        len(Range(3, 10))
