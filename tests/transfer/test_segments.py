"""Listing in pieces: whatever the keys and whatever order the answers come in, every key comes out once, in order."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3torchconnector._errors import S3ProtocolError
from s3torchconnector._transfer._segments import Ask, Segments
from s3torchconnector._types import ObjectInfo, ObjectInfos


class FakeBucket:
    """S3's side of a listing: pages of ``page`` keys; a share of them, ``scarce``, has fewer or none.

    ``in_order`` tells whether it sorts the keys, and knows start-after.
    """

    def __init__(
        self, keys: list[str], page: int, scarce: float = 0.0, seed: int = 0, *, in_order: bool = True
    ) -> None:
        self.keys = sorted(keys) if in_order else keys
        self.in_order = in_order
        self.page = page
        self.answers = 0
        self._scarce = scarce
        self._dice = random.Random(seed)

    def answer(self, ask: Ask) -> tuple[ObjectInfos, str | None]:
        self.answers += 1
        if ask.token is not None:
            assert ask.start_after is None
            start = int(ask.token.partition(" ")[0])
        else:
            assert self.in_order or ask.start_after is None
            start = sum(key <= (ask.start_after or "") for key in self.keys)
        stop = start + (self._dice.randrange(self.page) if self._dice.random() < self._scarce else self.page)
        token = f"{stop} {self.answers}" if stop < len(self.keys) else None
        return ObjectInfos.of(ObjectInfo(key, "", 1, 0) for key in self.keys[start:stop]), token


def list_with(bucket: FakeBucket, width: int, most_waiting: int, seed: int) -> list[str]:
    order = random.Random(seed)
    segments = Segments("", width, most_waiting, in_order=bucket.in_order)
    under_way: list[Ask] = []
    listed: list[str] = []
    while not segments.exhausted:
        under_way += segments.next_asks()
        assert 1 <= len(under_way) <= width
        ask = under_way.pop(order.randrange(len(under_way)))
        page = bucket.answer(ask)
        ask.check(*page)
        segments.take(ask.segment, *page)
        for objects in segments.ready():
            listed += [info.key for info in objects]
    assert not under_way
    return listed


keys_of_any_kind = st.sets(st.text(st.characters(codec="utf-8"), min_size=1, max_size=12), max_size=120)
keys_like_names = st.builds(
    lambda stem, numbers: {f"{stem}{number:05d}.jpg" for number in numbers},
    st.sampled_from(["", "part-", "a/b/"]),
    st.sets(st.integers(0, 99_999), max_size=200),
)


@settings(max_examples=150, deadline=None)
@given(
    keys=keys_of_any_kind | keys_like_names,
    page=st.integers(1, 20),
    width=st.integers(1, 16),
    most_waiting=st.integers(1, 32),
    scarce=st.sampled_from([0.0, 0.5, 0.9]),
    seed=st.integers(0, 1000),
)
def test_every_key_comes_out_once_and_in_order(
    keys: set[str], page: int, width: int, most_waiting: int, scarce: float, seed: int
) -> None:
    """Also where S3 sends pages with fewer keys than there is room for, or none, before the last one."""
    bucket = FakeBucket(list(keys), page, scarce, seed)
    assert list_with(bucket, width, most_waiting, seed) == sorted(keys)


@settings(max_examples=50, deadline=None)
@given(
    keys=st.lists(st.text(min_size=1, max_size=3), unique=True, max_size=120),
    page=st.integers(1, 20),
    width=st.integers(1, 16),
    scarce=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 1000),
)
def test_a_bucket_without_order_is_listed_in_the_one_it_has(
    keys: list[str], page: int, width: int, scarce: float, seed: int
) -> None:
    bucket = FakeBucket(keys, page, scarce, seed, in_order=False)
    assert list_with(bucket, width, 32, seed) == keys
    assert scarce or bucket.answers == max(1, -(-len(keys) // page))


def test_numbered_keys_are_guessed_well() -> None:
    bucket = FakeBucket([f"{i:08d}" for i in range(20_000)], page=100)
    assert len(list_with(bucket, width=16, most_waiting=256, seed=0)) == 20_000
    assert bucket.answers <= 200 * 1.6


def test_a_short_listing_asks_little_more_than_it_has_pages() -> None:
    bucket = FakeBucket([f"{i:08d}" for i in range(150)], page=100)
    list_with(bucket, width=16, most_waiting=256, seed=0)
    assert bucket.answers <= 8


def test_keys_that_cannot_be_guessed_cost_a_bounded_number_of_requests() -> None:
    keys = [f"common/very/long/prefix/{'x' * 40}{i:06d}" for i in range(10_000)]
    bucket = FakeBucket(keys, page=100)
    assert list_with(bucket, width=16, most_waiting=256, seed=0) == keys
    assert bucket.answers <= 100 * 2 + 40


def test_pages_without_keys_cost_no_trust_in_guesses() -> None:
    """They are S3's doing; only a guess behind the last key is a bad one."""
    bucket = FakeBucket([f"{i:08d}" for i in range(20_000)], page=100)
    segments = Segments("", width=16, most_waiting=256)
    (first,) = segments.next_asks()
    segments.take(first.segment, *bucket.answer(first))
    first, guess, _ = segments.next_asks()
    for number in range(50):
        segments.take(first.segment, _page(), f"nothing yet {number}")
        (first,) = segments.next_asks()
    segments.take(guess.segment, *bucket.answer(guess))
    assert len(segments.next_asks()) == 3  # beside the two under way


@pytest.mark.parametrize(
    ("keys", "token", "message"),
    [
        (["a", "b"], "t", "does not know start-after"),
        (["d", "c"], "t", "does not list in the order of keys"),
        ([], "again", "would not end"),
        (["d"], "again", "would not end"),
    ],
)
def test_a_page_that_would_repeat_keys_or_never_end_is_refused(keys: list[str], token: str, message: str) -> None:
    segments = Segments("", width=1, most_waiting=1)
    (ask,) = segments.next_asks()
    segments.take(ask.segment, _page("a", "b"), "again")
    (ask,) = segments.next_asks()
    assert (ask.token, ask.start_after) == ("again", None)
    ask.check(_page("c", "d"), "t")
    with pytest.raises(S3ProtocolError, match=message):
        ask.check(_page(*keys), token)


def _page(*keys: str) -> ObjectInfos:
    return ObjectInfos.of(ObjectInfo(key, "", 1, 0) for key in keys)
