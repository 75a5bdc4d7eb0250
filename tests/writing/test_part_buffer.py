"""A part is what was added to it, whichever way, and gives back the memory that it took."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3torchconnector._transfer import address_of
from s3torchconnector._transfer.engine._budget import BUFFER_SIZE, ByteBudget
from s3torchconnector._transfer.writing._part_buffer import PartBuffer

MIB = 1024**2
LEAST = 5 * MIB
_WAYS = st.sampled_from(["copied", "kept", "lent"])
_PIECES = st.lists(st.tuples(_WAYS, st.integers(1, 200_000) | st.just(MIB) | st.just(MIB + 1)), max_size=8)


@given(_PIECES)
def test_a_part_is_its_pieces_in_order(pieces: list[tuple[str, int]]) -> None:
    budget = ByteBudget(64 * MIB)
    part = PartBuffer(budget, lambda: True, LEAST)
    expected = bytearray()
    for number, (way, size) in enumerate(pieces):
        data = bytearray([number + 1]) * size
        expected += data
        if way == "lent":
            part.lend(memoryview(data))
        else:
            part.add(memoryview(bytes(data) if way == "kept" else data), immutable=way == "kept")
            if way == "copied":
                data[:] = bytes(size)  # is the program's again
    assert b"".join(part.body()) == expected
    assert part.size == len(expected)
    part.release()
    assert budget.taken == 0


def test_lent_tensors_take_no_memory() -> None:
    budget = ByteBudget(MIB)
    part = PartBuffer(budget, lambda: False, LEAST)
    data = memoryview(bytearray(10 * MIB))
    part.lend(data)
    assert budget.taken == 0
    assert part.body() == [data]


def test_bytes_are_sent_from_where_they_are() -> None:
    """No second copy: they cannot change. The budget holds them as they are, not the buffers for a copy."""
    budget = ByteBudget(64 * MIB)
    part = PartBuffer(budget, lambda: False, LEAST)
    large = [bytes([number]) * (MIB + number) for number in range(3)]
    for data in large:
        part.add(memoryview(data), immutable=True)
    assert budget.taken == part.size == sum(map(len, large))
    sent = [memoryview(each) for each in part.body()]
    assert [(address_of(each), len(each)) for each in sent] == [(address_of(memoryview(d)), len(d)) for d in large]
    part.release()
    assert budget.taken == 0


def test_what_may_change_or_is_small_is_copied_into_buffers() -> None:
    budget = ByteBudget(64 * MIB)
    part = PartBuffer(budget, lambda: False, LEAST)
    part.add(memoryview(bytearray(MIB)), immutable=False)
    for _ in range(10):
        part.add(memoryview(bytes(1000)), immutable=True)
    assert len(part.body()) == 1
    assert budget.taken == BUFFER_SIZE
    part.release()
    assert budget.taken == 0


@pytest.mark.parametrize("make", [bytes, bytearray])
def test_the_address_of_memory_that_can_and_cannot_be_written(make: type[bytes] | type[bytearray]) -> None:
    view = memoryview(make(b"some bytes"))
    assert address_of(view[5:]) - address_of(view) == 5
    assert address_of(view) == address_of(view.toreadonly())
