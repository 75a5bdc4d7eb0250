"""Requests and steps cover all wanted bytes, once and in order, for any layout."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from s3torchconnector._transfer import Range
from s3torchconnector.dcp._plan import (
    HEAD,
    SMALL,
    Discard,
    Gather,
    Rest,
    fetched_gaps,
    is_large,
    requests_for,
    steps_of,
)

_PART = 8 * SMALL
_LENGTHS = st.one_of(st.integers(1, 2000), st.integers(SMALL - 2, SMALL + 2), st.integers(1, 5 * _PART))
_GAPS = st.one_of(st.just(0), st.integers(0, 2000), st.integers(SMALL - 1, 3 * _PART))


@st.composite
def _items(draw: st.DrawFn) -> list[Range]:
    position, items = 0, []
    for gap, length in draw(st.lists(st.tuples(_GAPS, _LENGTHS), min_size=1, max_size=20)):
        items.append(Range(position + gap, position + gap + length))
        position = items[-1].stop
    return items


_MAX_GAPS = st.one_of(st.none(), st.integers(0, 4 * _PART))


@given(_items(), _MAX_GAPS)
def test_requests_cover_every_item_once(items: list[Range], max_gap: int | None) -> None:
    requests = list(requests_for(items, _PART, max_gap))
    covered: dict[int, int] = {number: item.start for number, item in enumerate(items)}
    for request in requests:
        assert 0 < request.stop - request.start <= _PART * 3 // 2
        for number, start, stop in request.pieces:
            assert start == covered[number] < stop
            covered[number] = stop
    assert list(covered.values()) == [item.stop for item in items]
    assert all(before.stop <= after.start for before, after in pairwise(requests))


@given(_items(), _MAX_GAPS)
def test_only_first_pieces_continue_items_and_heads_are_whole(items: list[Range], max_gap: int | None) -> None:
    for request in requests_for(items, _PART, max_gap):
        for number, start, stop in request.pieces[1:]:
            assert start == items[number].start
            assert stop - start >= (HEAD if is_large(items[number]) else items[number].size)
        number, start, stop = request.pieces[0]
        assert is_large(items[number]) or start == items[number].start


@given(_items(), _MAX_GAPS)
def test_a_request_waits_for_at_most_one_head(items: list[Range], max_gap: int | None) -> None:
    """In a chain of requests, each waits a round trip for the one before."""
    requests = list(requests_for(items, _PART, max_gap))
    with_head = {
        piece.item: each for each in requests for piece in each.pieces if piece.start == items[piece.item].start
    }
    for request in requests:
        number, start, _ = request.pieces[0]
        if start > items[number].start:
            assert with_head[number].start == items[number].start


@given(_items(), _MAX_GAPS)
def test_adjacent_items_share_a_request(items: list[Range], max_gap: int | None) -> None:
    joined = [False, *fetched_gaps(items, max_gap)]
    for before, after in pairwise(requests_for(items, _PART, max_gap)):
        number, start, _ = after.pieces[0]
        if joined[number] or start > items[number].start:
            assert max(after.stop, items[number].stop) - before.start > _PART


@given(_items(), _MAX_GAPS)
def test_steps_go_through_a_request_byte_by_byte(items: list[Range], max_gap: int | None) -> None:
    for request in requests_for(items, _PART, max_gap):
        position = request.start
        for step in steps_of(request, items):
            if isinstance(step, Discard):
                assert step.count > 0
                position += step.count
            elif isinstance(step, Gather):
                assert step.start == position == step.pieces[0].start
                assert not any(is_large(items[piece.item]) for piece in step.pieces[:-1])
                position = step.stop
            else:
                assert isinstance(step, Rest)
                assert step.piece.start == position
                position = step.piece.stop
        assert position == request.stop


@given(_items())
def test_unwanted_bytes_are_small_gaps_and_a_tenth(items: list[Range]) -> None:
    gaps = [after.start - before.stop for before, after in pairwise(items)]
    large = [gap for gap, found in zip(gaps, fetched_gaps(items, None), strict=True) if found and gap > SMALL]
    assert sum(large) <= sum(item.size for item in items) / 10


def test_the_smallest_gaps_are_fetched_first() -> None:
    gap, length = 10**5, 10**6
    items = [Range(0, length), Range(2 * length, 3 * length), Range(3 * length + gap, 4 * length)]
    items.append(Range(4 * length + gap, 5 * length))
    assert fetched_gaps(items, None) == [False, True, True]  # a million would be more than a tenth


def test_gaps_are_fetched_up_to_max_gap_size() -> None:
    items = [Range(0, 10), Range(20, 30), Range(41, 50)]
    assert fetched_gaps(items, 10) == [True, False]
    assert [request.pieces[-1].item for request in requests_for(items, _PART, 10)] == [1, 2]
    assert [request.pieces[-1].item for request in requests_for(items, _PART, 11)] == [2]


def test_overlapping_items_do_not_share_a_request() -> None:
    assert len(list(requests_for([Range(0, 10), Range(5, 20)], _PART))) == 2
