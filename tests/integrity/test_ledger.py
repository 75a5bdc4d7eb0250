"""What came and what was handed out, against an oracle: any pieces, in any order, as often as they like."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3torchconnector._transfer.engine._ranges import Range
from s3torchconnector._transfer.reading import _ledger
from s3torchconnector._transfer.reading._ledger import NOT_SUMMED, Ledger, Sums
from s3torchconnector._transfer.reading._spans import Spans
from tests.integrity.support import CRC32, CRC32C, CRC64NVME
from tests.reading.support import content

SIZE = 40
DATA = content(0, SIZE)
KINDS = (CRC32, CRC32C, CRC64NVME)


def sums_of(data: bytes | memoryview, kinds: tuple[_ledger.Algorithm, ...] = (CRC32,)) -> Sums:
    return Sums({kind: kind.of([data]) for kind in kinds}) if kinds else Sums({}, bytes(data))


class Come(NamedTuple):
    """A piece comes, and some of it is handed out. ``flipped`` says which bit is wrong; no ``kinds``: it is kept."""

    start: int
    stop: int
    first: int
    last: int
    flipped: int | None
    kinds: tuple[_ledger.Algorithm, ...]

    @property
    def data(self) -> bytes:
        data = bytearray(DATA[self.start : self.stop])
        if self.flipped is not None and self.start <= self.flipped < self.stop:
            data[self.flipped - self.start] ^= 1
        return bytes(data)


@st.composite
def comings(draw: st.DrawFn, flips: bool) -> Come:
    start = draw(st.integers(0, SIZE - 1))
    stop = draw(st.integers(start + 1, SIZE))
    first = draw(st.integers(start, stop - 1))
    last = draw(st.integers(first + 1, stop))
    flipped = draw(st.none() | st.integers(0, SIZE - 1)) if flips else None
    return Come(start, stop, first, last, flipped, tuple(draw(st.sets(st.sampled_from(KINDS)))))


def rest(step: int, flipped: int | None) -> list[Come]:
    """All of the object, in order."""
    ranges = [(start, min(SIZE, start + step)) for start in range(0, SIZE, step)]
    return [Come(start, stop, start, stop, flipped, (CRC32,)) for start, stop in ranges]


def is_found_right(ledger: Ledger) -> bool:
    """As ``compare`` does it, with what S3 has at hand."""
    confirmed = {}
    for pieces in ledger.doubtful(CRC32).values():
        for piece, sums in pieces:
            stored = DATA[piece.start : piece.stop]
            if not sums.agree(sums_of(stored, KINDS)):
                return False
            confirmed[piece] = sums_of(stored)
    ledger.note_compared()
    return ledger.wrong is None and Sums({CRC32: CRC32.of([DATA])}).of(CRC32) == _combined(ledger, confirmed)


def _combined(ledger: Ledger, confirmed: dict[Range, Sums]) -> int | None:
    ledger.confirm({piece: sums for piece, sums in confirmed.items() if piece in ledger._tiles})
    return ledger.combined(CRC32, SIZE)


def play(steps: list[Come]) -> None:
    ledger, handed_out, wrong, any_flip = Ledger(), set(), False, False
    for step in steps:
        data = step.data
        ledger.add(Range(step.start, step.stop), sums_of(data, step.kinds), data, sums_of)
        ledger.hand_out(step.first, step.last)
        handed_out |= set(range(step.first, step.last))
        wrong |= data[step.first - step.start : step.last - step.start] != DATA[step.first : step.last]
        any_flip |= data != DATA[step.start : step.stop]
        if ledger.is_due(SIZE) and not is_found_right(ledger):
            assert any_flip
            return
        assert ledger.is_handed_out(SIZE) == (len(handed_out) == SIZE)
        if ledger.is_handed_out(SIZE):
            assert not wrong
            return


@given(st.lists(comings(flips=False), max_size=12), st.integers(1, SIZE))
def test_right_objects_have_no_problems(steps: list[Come], step: int) -> None:
    play([*steps, *rest(step, None)])


@given(st.lists(comings(flips=True), max_size=12), st.integers(1, SIZE), st.none() | st.integers(0, SIZE - 1))
def test_all_bytes_handed_out_of_a_whole_object_are_right(steps: list[Come], step: int, flipped: int | None) -> None:
    play([*steps, *rest(step, flipped)])


@given(st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)), max_size=30))
def test_spans_are_a_set_of_positions(ranges: list[tuple[int, int]]) -> None:
    spans, oracle = Spans(), set[int]()
    for start, stop in ranges:
        new = set(range(start, stop)) - oracle
        assert spans.add(start, stop) == len(new)
        oracle |= new
        assert spans.total == len(oracle)
        found = list(spans)
        assert [p for span in found for p in range(span.start, span.stop)] == sorted(oracle)
        assert all(one.stop < two.start for one, two in pairwise(found))


def test_neighbours_are_joined_before_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ledger, "_MOST_PIECES", 10)
    ledger = Ledger()
    for start in range(SIZE):
        ledger.add(Range(start, start + 1), sums_of(DATA[start : start + 1]), None, sums_of)
        ledger.hand_out(start, start + 1)
    assert not ledger.overflowed
    assert ledger.is_due(SIZE)
    assert ledger.combined(CRC32, SIZE) == CRC32.of([DATA])


@pytest.mark.parametrize("most_spans", [10, 1000])
def test_of_too_many_pieces_no_checksums_are_known(monkeypatch: pytest.MonkeyPatch, most_spans: int) -> None:
    monkeypatch.setattr(_ledger, "_MOST_PIECES", 10)
    monkeypatch.setattr(_ledger, "_MOST_SPANS", most_spans)
    ledger = Ledger()
    for _ in range(3):
        for start in range(0, SIZE, 2):
            ledger.add(Range(start, start + 1), sums_of(DATA[start : start + 1]), None, sums_of)
            ledger.hand_out(start, start + 1)
    assert ledger.overflowed
    assert ledger.is_due(SIZE) == (most_spans == 10)  # if their places are not known either, it may be all
    ledger.add(Range(0, SIZE), sums_of(DATA), DATA, sums_of)
    ledger.hand_out(0, SIZE)
    assert ledger.is_due(SIZE)
    assert not ledger.is_summed


def test_what_was_not_summed_is_not_taken_for_right() -> None:
    ledger = Ledger()
    ledger.add(Range(0, SIZE), NOT_SUMMED, DATA, sums_of)
    assert not ledger.is_summed
    assert ledger.combined(CRC32, SIZE) is None
