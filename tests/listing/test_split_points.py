"""Where a listing is split: few wasted requests and many pages at a time, for realistic keys."""

from __future__ import annotations

import datetime
import math
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3torchconnector._transfer.listing._key_space import KeySpace
from s3torchconnector._transfer.listing._segments import Segments
from tests.listing.test_segments import FakeBucket, list_with


def keys_of_training_data() -> dict[str, list[str]]:
    """20,000 of each kind that people have."""
    dice = random.Random(0)
    some = range(20_000)

    def uuid() -> str:
        text = f"{dice.getrandbits(128):032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    start = datetime.date(2023, 11, 20)
    days = [f"{start + datetime.timedelta(day):%Y/%m/%d}" for day in range(400)]
    synsets = sorted(dice.sample(range(1_440_764, 15_075_141), 154))
    words = ["abacus", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck", "zebra"]
    scripts = ["abc/", "ключ/", "données/", "日本語/", "emoji 🎉/"]
    return {
        "numbers": [f"{i:08d}" for i in some],
        "numbers without zeros": [f"image_{i}.jpg" for i in some],
        "shards": [f"shard-{i:06d}.tar" for i in some],
        "UUIDs": [uuid() for _ in some],
        "UUIDs, long prefix": [f"projects/team-a/experiments/2024-06-01/run-0001/samples/{uuid()}" for _ in some],
        "numbers, long prefix": [f"common/very/long/prefix/{'x' * 40}{i:06d}" for i in some],
        "dates": [f"{days[i // 50]}/{i % 50:06d}.parquet" for i in some],
        "dates and UUIDs": [f"{days[i // 50]}/{uuid()}" for i in some],
        "ImageNet": [f"n{synset:08d}/n{synset:08d}_{i}.JPEG" for synset in synsets for i in range(10_000, 10_130)],
        "classes and UUIDs": [f"train/{words[i % 10]}/{uuid()}.png" for i in some],
        "scripts": [f"{scripts[i % 5]}{i:06d}" for i in some],
        "one large directory": [
            *map(str, range(50)),
            *(f"logs/2024/{i:07d}" for i in some),
            *(f"z/{w}" for w in words),
        ],
    }


TRAINING_DATA = keys_of_training_data()


@pytest.mark.parametrize("kind", TRAINING_DATA)
def test_keys_of_training_data_are_guessed_well(kind: str) -> None:
    """Few requested pages are wasted, and many are requested at a time: the responses come in rounds here."""
    bucket = FakeBucket(TRAINING_DATA[kind], page=100)
    segments, rounds = Segments("", width=24, most_waiting=256), 0
    listed: list[str] = []
    while not segments.exhausted:
        rounds += 1
        for request in segments.next_requests():
            segments.add_page(request, bucket.respond(request))
            for objects in segments.ready():
                listed += objects.keys
    assert listed == bucket.keys
    assert bucket.pages <= 1.35 * len(listed) / 100
    assert rounds <= len(listed) / 100 / 2


def test_pages_that_are_half_empty_are_listed_many_at_a_time() -> None:
    """S3 sends such pages if it had to pass deleted keys: they were not wasted."""
    bucket = FakeBucket([f"{i:08d}" for i in range(20_000)], page=100, scarce=0.5)
    segments, rounds = Segments("", width=24, most_waiting=256), 0
    while not segments.exhausted:
        rounds += 1
        for request in segments.next_requests():
            segments.add_page(request, bucket.respond(request))
            list(segments.ready())
    assert rounds <= bucket.pages / 3


def test_a_short_listing_asks_little_more_than_it_has_pages() -> None:
    bucket = FakeBucket([f"{i:08d}" for i in range(150)], page=100)
    list_with(bucket, width=16, most_waiting=256, seed=0)
    assert bucket.pages <= 4


def test_keys_that_cannot_be_guessed_cost_few_requests() -> None:
    """Their directories are random, and each has one page."""
    dice = random.Random(0)
    directories = ["".join(dice.choices("abcdefghijklmnopqrstuvwxyz/", k=dice.randrange(1, 30))) for _ in range(100)]
    bucket = FakeBucket({f"{directory}/{i}" for directory in directories for i in range(100)}, page=100)
    assert list_with(bucket, width=16, most_waiting=256, seed=0) == bucket.keys
    assert bucket.pages <= 100 * 1.4


SCRIPTS = [
    "abcdefghijklmnopqrstuvwxyz", "ABCXYZ", "0123456789", "абвгдежзиклмн", "日本語東京大阪名古屋", "あいうえおかき",
    "éüñ", "\U0001f600\U0001f680\U0001f99c", "-_.'() =&+",
]  # fmt: skip


@st.composite
def keys_of_mixed_scripts(draw: st.DrawFn) -> set[str]:
    """Keys of several scripts below some directories, evenly or most of them in a few, after a long prefix or none."""
    dice = random.Random(draw(st.integers(0, 2**32)))
    scripts = draw(st.lists(st.sampled_from(SCRIPTS), min_size=1, max_size=6, unique=True))
    letters = "".join(scripts)
    prefix = draw(st.sampled_from(["", "x" * 150, "данные/"]))
    depth = draw(st.integers(0, 3))
    skew = draw(st.sampled_from([0, 1, 8]))
    parts = ["".join(dice.choices(letters, k=dice.randrange(1, 12))) for _ in range(draw(st.integers(1, 50)))]
    weights = [dice.random() ** skew for _ in parts]
    keys: set[str] = set()
    for _ in range(draw(st.integers(20, 2_000))):
        directories = dice.choices(parts, weights, k=dice.randrange(depth + 1))
        name = "".join(dice.choices(dice.choice(scripts), k=dice.randrange(1, 9)))
        keys.add(prefix + "/".join([*directories, name]))
    return keys


@settings(max_examples=60, deadline=None)
@given(keys_of_mixed_scripts(), st.sampled_from([10, 20, 50]), st.integers(0, 1000))
def test_no_keys_cost_many_more_requests_than_they_have_pages(keys: set[str], page: int, seed: int) -> None:
    """Of Latin, Cyrillic, CJK, digits and others, in whatever mixture, and in whatever order responses come."""
    bucket = FakeBucket(keys, page)
    assert list_with(bucket, width=24, most_waiting=256, seed=seed) == bucket.keys
    assert bucket.pages <= 1.25 * math.ceil(len(keys) / page) + 7


@given(st.sets(st.text("ab/019-\U0001f600", max_size=6), min_size=2), st.sampled_from(["", "a", "9/"]))
def test_coordinates_are_in_the_order_of_keys(tails: set[str], prefix: str) -> None:
    keys = sorted(prefix + tail for tail in tails)
    space = KeySpace(prefix)
    space.learn(keys[::2])
    places = [space.coordinate(key) for key in keys]
    assert all(first <= second + 1e-12 for first, second in pairwise(places))
    assert all(0.0 <= place <= 1.0 + 1e-12 for place in places)
    assert keys[::2][-1] < space.beyond()
    for place in places:
        assert space.coordinate(space.key_at(place, 1e-6)) <= place + 1e-9
