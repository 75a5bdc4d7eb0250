"""``S3Reader`` against ``io.BytesIO``: any sequence of calls, every reading policy, the real server."""

from __future__ import annotations

import io
import os
import random
import shutil
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s3torchconnector._s3client import S3Client
from s3torchconnector._types import ObjectInfo
from s3torchconnector.s3reader import S3ReaderConstructor
from s3torchconnector.testing import S3Server
from tests.reading.support import KIB, MIB, PART, archive_of_torch, client_of, open_object

SIZES = (0, 1, 1000, 256 * KIB, 256 * KIB + 1, PART - 1, PART, PART + 1, 12 * MIB + 345, 24 * MIB)
ARCHIVES = (PART + 1, 24 * MIB)  # of them, those that look as if ``torch.save`` had made them

START = ("cold", "prefetched", "listed")

POLICIES = {
    "default": S3ReaderConstructor.default(),
    "sequential": S3ReaderConstructor.sequential(),
    "range_based": S3ReaderConstructor.range_based(),
    "range_based-0": S3ReaderConstructor.range_based(0),
    "range_based-1000": S3ReaderConstructor.range_based(1000),
    "range_based-3MiB": S3ReaderConstructor.range_based(3 * MIB),
    "dcp_optimized": S3ReaderConstructor.dcp_optimized(),
    "dcp_optimized-0": S3ReaderConstructor.dcp_optimized(0),
}


class Objects(NamedTuple):
    """A bucket with one object of each of ``SIZES``, named after it."""

    client: S3Client
    bucket: str
    data: dict[int, bytes]


@pytest.fixture(scope="module")
def objects(s3_server: S3Server) -> Iterator[Objects]:
    bucket = f"test-{uuid.uuid4().hex}"
    folder = s3_server.make_bucket(bucket)
    data = {size: random.Random(size).randbytes(size) for size in SIZES}
    data |= {size: archive_of_torch(data[size]) for size in ARCHIVES}
    for size in SIZES:
        (folder / str(size)).write_bytes(data[size])
    with client_of(s3_server.endpoint) as client:
        yield Objects(client, bucket, data)
    shutil.rmtree(folder)


class Pair:
    """The reader and its oracle; each step does the same to both and compares."""

    def __init__(self, reader: Any, data: bytes) -> None:
        self.reader = reader
        self.oracle = io.BytesIO(data)
        self.size = len(data)

    def read(self, size: int | None) -> None:
        assert self.reader.read(size) == self.oracle.read(size)

    def readline(self, size: int) -> None:
        assert self.reader.readline(size) == self.oracle.readline(size)

    def readinto(self, make: Callable[[int], Any], size: int) -> None:
        buffer, expected = make(size), make(size)
        assert self.reader.readinto(buffer) == self.oracle.readinto(expected)
        assert bytes(buffer) == bytes(expected)

    def read1(self, size: int) -> None:
        self._is_next(self.reader.read1(size), size, moves=True)

    def peek(self, size: int) -> None:
        self._is_next(self.reader.peek(size), None, moves=False)

    def seek(self, offset: int, whence: int) -> None:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.oracle.tell(), os.SEEK_END: self.size}[whence]
        target = base + offset
        if target < 0:
            with pytest.raises(ValueError, match="before the start"):
                self.reader.seek(offset, whence)
            return
        self.oracle.seek(min(target, self.size))
        assert self.reader.seek(offset, whence) == self.oracle.tell()

    def _is_next(self, got: bytes, most: int | None, *, moves: bool) -> None:
        """``got`` is some of what comes next, and something unless nothing was wanted or there is nothing."""
        start = self.oracle.tell()
        assert got == self.oracle.getvalue()[start : start + len(got)]
        assert bool(got) == (most != 0 and start < self.size)
        assert most is None or most < 0 or len(got) <= most
        self.oracle.seek(start + len(got) * moves)


def _floats(size: int) -> np.ndarray[Any, Any]:
    return np.zeros((3, size // 24), np.float64)


def _tensor_memory(size: int) -> np.ndarray[Any, Any]:
    return torch.zeros(2, size // 8, dtype=torch.float32).numpy()


def _cast(size: int) -> memoryview:
    return memoryview(bytearray(size // 4 * 4)).cast("I")


def _steps() -> st.SearchStrategy[list[partial[None]]]:
    sizes = st.one_of(
        st.integers(0, 300),
        st.integers(0, 2 * MIB),
        st.integers(0, 30 * MIB),
        st.sampled_from([256 * KIB, PART - 1, PART, PART + 1, 2 * PART]),
    )
    offsets = st.one_of(sizes, sizes.map(lambda size: -size))
    buffers = st.sampled_from([bytearray, _floats, _tensor_memory, _cast])
    step = st.one_of(
        st.builds(lambda size: partial(Pair.read, size=size), sizes),
        st.sampled_from([partial(Pair.read, size=None), partial(Pair.read, size=-1)]),
        st.builds(lambda size: partial(Pair.read1, size=size), st.one_of(sizes, st.just(-1))),
        st.builds(lambda size: partial(Pair.peek, size=size), st.integers(0, MIB)),
        st.builds(lambda size: partial(Pair.readline, size=size), st.integers(-1, 1000)),
        st.builds(lambda make, size: partial(Pair.readinto, make=make, size=size), buffers, sizes),
        st.builds(
            lambda offset, whence: partial(Pair.seek, offset=offset, whence=whence),
            offsets,
            st.sampled_from([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END]),
        ),
    )
    return st.lists(step, min_size=1, max_size=12)


@pytest.mark.parametrize("policy", POLICIES)
@given(size=st.sampled_from(SIZES), start=st.sampled_from(START), steps=_steps())
@settings(max_examples=50)
def test_any_sequence_of_calls(
    objects: Objects, policy: str, size: int, start: str, steps: list[partial[None]]
) -> None:
    listed = ObjectInfo(str(size), "", size, 0) if start == "listed" else None
    arguments = {"object_info": listed, "reader_constructor": POLICIES[policy]}
    with open_object(objects.client, objects.bucket, str(size), **arguments) as reader:
        pair = Pair(reader, objects.data[size])
        if start == "prefetched":
            reader.prefetch()
        for step in steps:
            step(pair)
            assert reader.tell() == pair.oracle.tell()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("piece", [700 * KIB, MIB, PART, 7 * MIB])
def test_in_order_in_pieces(objects: Objects, policy: str, piece: int) -> None:
    size = SIZES[-2]
    constructor = POLICIES[policy]
    with open_object(objects.client, objects.bucket, str(size), reader_constructor=constructor) as reader:
        assert b"".join(iter(lambda: reader.read(piece), b"")) == objects.data[size]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("start_early", [False, True], ids=["cold", "prefetched"])
def test_whole_objects(objects: Objects, size: int, start_early: bool) -> None:
    for read in (
        lambda reader: reader.read(),
        lambda reader: reader.read(size + 1),
        lambda reader: _filled(reader, size + 1),
        lambda reader: reader.read(reader.seek(0, os.SEEK_END) + reader.seek(0)),
    ):
        with open_object(objects.client, objects.bucket, str(size)) as reader:
            if start_early:
                reader.prefetch()
            assert read(reader) == objects.data[size]


def _filled(reader: Any, size: int) -> bytes:
    buffer = bytearray(size)
    return bytes(buffer[: reader.readinto(buffer)])
