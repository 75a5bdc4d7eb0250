"""Large copies, and new memory that gets its pages at once."""

from __future__ import annotations

import mmap
import resource
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3torchconnector._config import MIB
from s3torchconnector._transfer.engine._memory import CopiedBytes, FillableBytes, copy, new_buffer, populate

SOURCE = bytes(range(256)) * (2 * MIB // 256)


def faults_of_writing(view: memoryview) -> int:
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for place in range(0, len(view), mmap.PAGESIZE):
        view[place] = 1
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before


@settings(max_examples=50)
@given(
    size=st.integers(0, 3) | st.integers(MIB - 2, MIB + 2) | st.integers(0, 2 * MIB - 5000),
    start=st.integers(0, 5000),
    kind=st.sampled_from([bytes, bytearray]),
)
def test_a_copy_writes_exactly_its_destination(size: int, start: int, kind: type) -> None:
    destination = bytearray(b"\xff" * (2 * MIB))
    copy(memoryview(destination)[start : start + size], memoryview(kind(SOURCE))[start : start + size])
    assert destination[start : start + size] == SOURCE[start : start + size]
    assert destination.count(b"\xff", 0, start) == start
    assert destination.count(b"\xff", start + size) == 2 * MIB - start - size


@pytest.mark.parametrize("start", [0, 1, mmap.PAGESIZE - 1])
def test_populated_memory_has_its_pages_before_it_is_written(start: int) -> None:
    view = memoryview(new_buffer(4 * MIB))[start : start + 3 * MIB]
    populate(view)
    assert faults_of_writing(view) < 16  # those at its ends are shared with its neighbours
    assert view.tobytes() == b"".join((b"\1" + bytes(mmap.PAGESIZE - 1)) for _ in range(3 * MIB // mmap.PAGESIZE))


def test_memory_with_content_keeps_it() -> None:
    memory = bytearray(SOURCE)
    populate(memoryview(memory))
    assert memory == SOURCE


def test_collecting_a_buffer_being_filled_prints_nothing() -> None:
    """In a program, since before Python 3.13 only its development mode tells."""
    program = """if True:
        import gc
        from s3torchconnector._transfer.engine._memory import FillableBytes
        filling = FillableBytes(bytes(1000))
        cycle = [filling.getbuffer()]
        cycle.append(cycle)
        del filling, cycle
        gc.collect()
    """
    done = subprocess.run([sys.executable, "-X", "dev", "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("kind", dict.fromkeys([FillableBytes, CopiedBytes]))  # one on CPython 3.12.0 and 3.12.1
def test_filled_bytes_are_handed_out(kind: type[FillableBytes]) -> None:
    buffer = kind(bytes(1000))
    with buffer.getbuffer() as view:
        view[:3] = b"abc"
    assert buffer.getvalue() == b"abc" + bytes(997)
    assert (buffer.getvalue() is buffer.getvalue()) == (kind is not CopiedBytes)  # without a copy
    assert kind().getvalue() == b""
