"""Figures as values: they add up in any order, and say what their parts say."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3torchconnector._metrics import bucket_of
from s3torchconnector._time_buckets import BOUNDS
from s3torchconnector.metrics import Histogram, Metrics, Prices
from tests.metrics.support import operations_of_the_source

_times = st.lists(st.floats(0.0, 1000.0), min_size=1, max_size=50)
_counts = st.integers(0, 10**12)
_metrics = st.builds(
    Metrics,
    seconds=st.floats(0.0, 1e6),
    requests=st.dictionaries(
        st.sampled_from(["GetObject", "PutObject", "HeadObject"]),
        st.dictionaries(st.sampled_from([0, 200, 206, 404, 503]), st.integers(1, 10**9), min_size=1),
    ),
    received_bytes=_counts,
    retries=_counts,
    hedges=_counts,
    first_byte=st.dictionaries(st.sampled_from(["GetObject", "PutObject"]), _times.map(Histogram.of)),
    connections_idle=_counts,
    memory_limit=_counts,
)


@given(_metrics, _metrics, _metrics)
def test_a_sum_does_not_depend_on_the_order(a: Metrics, b: Metrics, c: Metrics) -> None:
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a
    assert a + Metrics() == a


@given(_metrics, _metrics)
def test_what_was_added_can_be_taken_away(before: Metrics, more: Metrics) -> None:
    later = before + more
    since = later - before
    assert (since.requests, since.received_bytes, since.retries) == (more.requests, more.received_bytes, more.retries)
    assert since.first_byte == more.first_byte
    assert since.memory_limit == later.memory_limit  # what is now, not what was done
    assert since.seconds == later.seconds - before.seconds


@given(_times, st.floats(0.0, 1.0))
def test_a_quantile_is_in_the_bucket_of_the_exact_one(times: list[float], rank: float) -> None:
    found = Histogram.of(times).quantile(rank)
    exact = sorted(times)[max(0, math.ceil(rank * len(times)) - 1)]
    bucket = bucket_of(exact)
    lower = BOUNDS[bucket - 1] if bucket else 0.0
    assert lower <= found <= (BOUNDS[bucket] if bucket < len(BOUNDS) else lower)


@given(_times, _times)
def test_the_histogram_of_all_is_the_sum_of_histograms(some: list[float], others: list[float]) -> None:
    both = Histogram.of(some) + Histogram.of(others)
    assert both == Histogram.of([*some, *others])
    assert both.count == len(some) + len(others)
    assert both - Histogram.of(others) == Histogram.of(some)


def test_of_no_times_no_quantile_is_known() -> None:
    assert math.isnan(Histogram().quantile(0.5))
    with pytest.raises(ValueError, match="rank from 0 to 1"):
        Histogram.of([1.0]).quantile(99)


@given(_metrics)
def test_it_pickles_and_is_plain_data(metrics: Metrics) -> None:
    assert pickle.loads(pickle.dumps(metrics)) == metrics
    figures = metrics.as_dict()
    assert json.loads(json.dumps(figures)) == figures
    assert all(type(value) in (int, float) and math.isfinite(value) for value in figures.values())
    with pytest.raises(FrozenInstanceError):
        metrics.retries = 0  # type: ignore[misc]


def test_figures_by_name() -> None:
    metrics = Metrics(
        seconds=2.0,
        requests={"GetObject": {206: 3, 0: 1}, "ListObjectsV2": {200: 1}},
        received_bytes=30,
        first_byte={"GetObject": Histogram.of([0.1] * 3)},
    )
    figures = metrics.as_dict()
    assert (figures["requests"], figures["requests/GetObject/none"], figures["requests/GetObject/206"]) == (5, 1, 3)
    assert 0.09 < figures["first_byte_seconds/GetObject/p99"] < 0.12
    assert figures["cost_dollars"] == pytest.approx((4 * 0.0004 + 0.005) / 1000)
    assert str(metrics).startswith("5 requests, 30 B received, in 2.0 s, GetObject p50 ")
    assert str(metrics).endswith("0 B of 0 B of memory, $0.0000")


@pytest.mark.parametrize(
    ("operation", "dollars"),
    [
        *[(name, 0.4) for name in ("GetObject", "HeadObject", "GetObjectTagging", "CreateSession")],
        *[(name, 5.0) for name in ("PutObject", "CopyObject", "UploadPart", "UploadPartCopy")],
        *[(name, 5.0) for name in ("CreateMultipartUpload", "CompleteMultipartUpload")],
        *[(name, 5.0) for name in ("ListObjectsV2", "ListMultipartUploads", "CreateBucket")],
        *[(name, 0.0) for name in ("DeleteObject", "DeleteObjects", "AbortMultipartUpload")],
    ],
)
def test_a_million_requests_cost_the_price_that_amazon_publishes(operation: str, dollars: float) -> None:
    assert Metrics(requests={operation: {200: 1_000_000}}).cost() == pytest.approx(dollars)


def test_all_operations_have_a_price() -> None:
    (marker,) = [
        mark
        for mark in test_a_million_requests_cost_the_price_that_amazon_publishes.pytestmark
        if mark.name == "parametrize"
    ]
    assert {operation for operation, _ in marker.args[1]} == operations_of_the_source()


def test_what_s3_does_not_bill_costs_nothing() -> None:
    of = dict.fromkeys((200, 404, 0, 301, 500, 503), 1000)
    assert Metrics(requests={"GetObject": of}).cost(Prices(get=1.0)) == pytest.approx(3.0)
