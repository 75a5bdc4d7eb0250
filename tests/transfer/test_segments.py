"""Listing in pieces: whatever the keys and whatever order the answers come in, every key comes out once, in order."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from s3torchconnector._transfer._segments import Ask, Segments
from s3torchconnector._types import ObjectInfo, ObjectInfos


class FakeBucket:
    """S3's side of a listing: sorted keys, pages of ``page`` keys."""

    def __init__(self, keys: list[str], page: int) -> None:
        self.keys = sorted(keys)
        self.page = page
        self.answers = 0

    def answer(self, ask: Ask) -> tuple[ObjectInfos, bool]:
        self.answers += 1
        after = [key for key in self.keys if key > ask.start_after]
        return ObjectInfos.of(ObjectInfo(key, "", 1, 0) for key in after[: self.page]), len(after) > self.page


def list_with(bucket: FakeBucket, width: int, most_waiting: int, seed: int) -> list[str]:
    order = random.Random(seed)
    segments = Segments("", width, most_waiting)
    under_way: list[Ask] = []
    listed: list[str] = []
    while not segments.exhausted:
        under_way += segments.next_asks()
        assert 1 <= len(under_way) <= width
        ask = under_way.pop(order.randrange(len(under_way)))
        segments.take(ask.segment, *bucket.answer(ask))
        for page in segments.ready():
            listed += [info.key for info in page]
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
    seed=st.integers(0, 1000),
)
def test_every_key_comes_out_once_and_in_order(
    keys: set[str], page: int, width: int, most_waiting: int, seed: int
) -> None:
    bucket = FakeBucket(list(keys), page)
    assert list_with(bucket, width, most_waiting, seed) == sorted(keys)


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
