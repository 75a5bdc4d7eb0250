"""Listing in segments: whatever the keys, and whichever page comes first, each key is returned once, in order."""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from operator import lt
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from s3torchconnector._errors import S3ProtocolError
from s3torchconnector._listing_results import ObjectInfos
from s3torchconnector._transfer.listing._segments import PageRequest, Segments
from s3torchconnector._types import ObjectInfo
from s3torchconnector._wire import ListPage


class FakeBucket:
    """S3's side of a listing: pages of ``page`` keys; a share of them, ``scarce``, has fewer or none.

    Args:
        order: what the bucket sorts keys by, and compares start-after by; None: as given, and without start-after.
        change: called before each page, and may write and delete keys.
    """

    def __init__(
        self,
        keys: Iterable[str],
        page: int,
        scarce: float = 0.0,
        seed: int = 0,
        *,
        order: Callable[[str], Any] | None = str,
        change: Callable[[list[str]], None] = lambda keys: None,
    ) -> None:
        self.keys = list(keys) if order is None else sorted(keys, key=order)
        self.order = order
        self.page = page
        self.pages = 0
        self._scarce = scarce
        self._dice = random.Random(seed)
        self._change = change

    def respond(self, request: PageRequest) -> ListPage:
        self.pages += 1
        self._change(self.keys)
        keys = self.keys
        if request.token is not None:
            assert request.start_after is None
            keys = self._after(request.token.partition("|")[2])
        elif request.start_after is not None:
            keys = self._after(request.start_after)
        count = self._dice.randrange(self.page) if self._dice.random() < self._scarce else self.page
        here = keys[:count]
        last = here[-1] if here else request.token.partition("|")[2] if request.token else request.start_after or ""
        token = f"{self.pages}|{last}" if count < len(keys) else None
        in_order = all(map(lt, here, here[1:]))
        return ListPage(ObjectInfos.of(ObjectInfo(key, "", 1, 0) for key in here), [], token, in_order)

    def _after(self, last: str) -> list[str]:
        if not last:
            return self.keys
        if self.order is None:
            return self.keys[self.keys.index(last) + 1 :]
        return self.keys[bisect_right(self.keys, self.order(last), key=self.order) :]


def list_with(
    bucket: FakeBucket, width: int, most_waiting: int, seed: int, *, in_order: bool = True, prefix: str = ""
) -> list[str]:
    order = random.Random(seed)
    segments = Segments(prefix, width, most_waiting, in_order=in_order)
    under_way: list[PageRequest] = []
    listed: list[str] = []
    while not segments.exhausted:
        under_way += segments.next_requests()
        assert 1 <= len(under_way) <= width
        request = under_way.pop(order.randrange(len(under_way)))
        page = bucket.respond(request)
        request.check(page.next_token)
        segments.add_page(request, page)
        for objects in segments.ready():
            listed += objects.keys
        if segments.has_restarted():
            under_way.clear()
    assert not under_way
    return listed


def utf_16(key: str) -> bytes:
    return key.encode("utf-16-be")


keys_of_any_kind = st.sets(st.text(st.characters(codec="utf-8"), min_size=1, max_size=12), max_size=120)
keys_like_names = st.builds(
    lambda stem, numbers: {f"{stem}{number:05d}.jpg" for number in numbers},
    st.sampled_from(["", "part-", "a/b/"]),
    st.sets(st.integers(0, 99_999), max_size=200),
)


@settings(max_examples=150)
@given(
    keys=keys_of_any_kind | keys_like_names,
    page=st.integers(1, 20),
    width=st.integers(1, 16),
    most_waiting=st.integers(1, 32),
    scarce=st.sampled_from([0.0, 0.5, 0.9]),
    prefix=st.sampled_from(["", "a", "a/b/", "x" * 300]),
    itself=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_every_key_comes_out_once_and_in_order(
    keys: set[str], page: int, width: int, most_waiting: int, scarce: float, prefix: str, itself: bool, seed: int
) -> None:
    """Also if S3 sends pages with fewer keys than fit, or none, before the last one."""
    there = {prefix + key for key in keys} | ({prefix} if itself and prefix else set())
    bucket = FakeBucket(there, page, scarce, seed)
    assert list_with(bucket, width, most_waiting, seed, prefix=prefix) == sorted(there)


@settings(max_examples=50)
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
    bucket = FakeBucket(keys, page, scarce, seed, order=None)
    assert list_with(bucket, width, 32, seed, in_order=False) == keys
    assert scarce or bucket.pages == max(1, -(-len(keys) // page))


@settings(max_examples=150)
@given(
    keys=st.sets(st.text(min_size=1, max_size=4), max_size=120) | keys_like_names,
    order=st.sampled_from([utf_16, str.casefold, lambda key: key[::-1], lambda key: (len(key), key), hash]),
    page=st.integers(1, 20),
    width=st.integers(1, 16),
    most_waiting=st.integers(1, 32),
    scarce=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 1000),
)
@example(
    keys={"00101.jpg", "00100.jpg", "00000.jpg"},
    order=lambda key: key[::-1],
    page=1,
    width=2,
    most_waiting=1,
    scarce=0.5,
    seed=0,
).via("a page requested again was shorter, and its last key, returned before, came in a later one")
def test_a_bucket_in_any_other_order_is_listed_in_that(
    keys: set[str], order: Callable[[str], Any], page: int, width: int, most_waiting: int, scarce: float, seed: int
) -> None:
    """Only the pages tell that it is another order: each key is returned once all the same."""
    places = {key: (order(key), key) for key in keys}
    bucket = FakeBucket(keys, page, scarce, seed, order=lambda key: places.get(key, (order(key), key)))
    assert list_with(bucket, width, most_waiting, seed) == bucket.keys


STEMS = ["", "0", "05", "z", "\ue000", "\uff5e", "\U0001f600", "\U0001f601"]


@settings(max_examples=200)
@given(
    sizes=st.lists(st.integers(0, 200), min_size=len(STEMS), max_size=len(STEMS)),
    page=st.integers(1, 40),
    width=st.integers(2, 16),
    most_waiting=st.integers(4, 32),
    seed=st.integers(0, 1000),
)
def test_keys_that_utf_16_sorts_otherwise_are_not_lost(
    sizes: list[int], page: int, width: int, most_waiting: int, seed: int
) -> None:
    """Nearly all pages are in the order of UTF-8 then, and it shows only at the boundary of two segments."""
    keys = {f"{stem}{number:03d}" for stem, size in zip(STEMS, sizes, strict=True) for number in range(size)}
    bucket = FakeBucket(keys, page, seed=seed, order=utf_16)
    assert list_with(bucket, width, most_waiting, seed) == bucket.keys


@settings(max_examples=50)
@given(page=st.integers(1, 20), width=st.integers(1, 16), seed=st.integers(0, 1000), rate=st.floats(0, 1))
@example(page=11, width=9, seed=6, rate=1.0)
def test_concurrent_writes_and_deletes_lose_no_other_keys(page: int, width: int, seed: int, rate: float) -> None:
    dice, stay = random.Random(seed), [f"{number:04d}" for number in range(0, 1000, 2)]

    def change(keys: list[str]) -> None:
        if dice.random() < rate:
            key = f"{dice.randrange(500) * 2 + 1:04d}"
            place = bisect_left(keys, key)
            if keys[place : place + 1] == [key]:
                del keys[place]
            else:
                keys.insert(place, key)

    bucket = FakeBucket(stay, page, seed=seed, change=change)
    listed = list_with(bucket, width, 32, seed)
    assert listed == sorted(set(listed))
    assert [key for key in listed if not int(key) % 2] == stay


def test_pages_without_keys_cost_no_trust_in_guesses() -> None:
    """They are S3's doing; only a guess after the last key is a bad one."""
    bucket = FakeBucket([f"{i:08d}" for i in range(20_000)], page=100)
    segments = Segments("", width=16, most_waiting=256)
    (first,) = segments.next_requests()
    segments.add_page(first, bucket.respond(first))
    first, guess = segments.next_requests()
    for number in range(50):
        segments.add_page(first, _page(token=f"nothing yet {number}"))
        (first, *more) = segments.next_requests()
        assert not more
    segments.add_page(guess, bucket.respond(guess))
    assert len(segments.next_requests()) >= 2  # beside the one under way


@pytest.mark.parametrize("keys", [["a", "b"], ["d", "c"], ["c", "c"]], ids=["repeated", "disordered", "twice"])
def test_a_page_out_of_order_is_requested_again_and_believed(keys: list[str]) -> None:
    """From then on, nothing is guessed."""
    segments = Segments("", width=8, most_waiting=8)
    (request,) = segments.next_requests()
    segments.add_page(request, _page("a", "b", token="t"))
    assert [page.keys for page in segments.ready()] == [["a", "b"]]
    request = segments.next_requests()[0]
    assert (request.token, request.start_after) == ("t", None)
    segments.add_page(request, _page(*keys, token="u"))
    assert segments.disordered
    assert segments.has_restarted()
    assert not segments.has_restarted()
    (request,) = segments.next_requests()
    assert (request.token, request.start_after) == ("t", None)
    segments.add_page(request, _page(*keys, token="u"))
    assert [page.keys for page in segments.ready()] == [keys]
    (request,) = segments.next_requests()
    segments.add_page(request, _page("0"))
    assert [page.keys for page in segments.ready()] == [["0"]]
    assert segments.exhausted


@pytest.mark.parametrize("circle", [1, 2, 3, 17])
@pytest.mark.parametrize("before", [0, 1, 40])
def test_tokens_in_a_circle_are_refused(before: int, circle: int) -> None:
    segments = Segments("", width=1, most_waiting=1)

    def list_all() -> None:
        for number in range(3 * (before + circle) + 1):
            token = str(number) if number < before else f"again {number % circle}"
            (request,) = segments.next_requests()
            request.check(token)
            segments.add_page(request, _page(token=token))

    with pytest.raises(S3ProtocolError, match="would not end"):
        list_all()


def _page(*keys: str, token: str | None = None) -> ListPage:
    objects = ObjectInfos.of(ObjectInfo(key, "", 1, 0) for key in keys)
    return ListPage(objects, [], token, in_order=all(map(lt, keys, keys[1:])))
