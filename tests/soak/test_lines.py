"""Whether a line is flat: the decision at the end of a soak."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.soak.lines import FEWEST, LINES, Line

MEMORY, THREADS, _, SPEED = LINES


@given(st.floats(0, 1e6), st.integers(FEWEST, 200))
def test_what_never_changes_is_flat(value: float, count: int) -> None:
    assert all(line.is_flat([value] * count) for line in LINES)


@pytest.mark.parametrize("line", LINES[:3], ids=lambda line: line.name)
def test_what_leaks_is_not_flat(line: Line) -> None:
    leak = [100 + line.slack * second / 10 for second in range(120)]
    assert not line.is_flat(leak)
    assert line.is_flat(leak[::-1])


def test_slowing_down_is_not_flat_but_getting_faster_is() -> None:
    assert not SPEED.is_flat([100.0] * 60 + [45.0] * 60)
    assert SPEED.is_flat([100.0] * 60 + [55.0] * 60)
    assert SPEED.is_flat([100.0] * 60 + [500.0] * 60)


def test_the_start_and_single_peaks_do_not_count() -> None:
    assert MEMORY.is_flat([float(value) for value in range(0, 400, 20)] + [400.0] * 60)
    assert MEMORY.is_flat([400.0] * 70 + [4000.0] * 5 + [400.0] * 5)


def test_tolerance_is_a_share_and_a_slack() -> None:
    assert THREADS.is_flat([50.0] * 40 + [59.0] * 40)
    assert not THREADS.is_flat([50.0] * 40 + [59.5] * 40)


def test_too_few_samples_decide_nothing() -> None:
    with pytest.raises(ValueError, match="7 samples of memory are too few"):
        MEMORY.is_flat([1.0] * 7)
