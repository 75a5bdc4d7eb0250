"""Prometheus and OpenTelemetry get the figures by their own rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from s3torchconnector import S3Client, metrics
from s3torchconnector._time_buckets import BOUNDS
from s3torchconnector.metrics import Prices
from s3torchconnector.metrics.otel import instrument
from s3torchconnector.metrics.prometheus import MetricsCollector
from s3torchconnector.testing import S3Server
from tests.metrics.test_processes import in_forked_child

REGION = "us-east-1"
PRICES = Prices(put=1.0, get=1000.0)
_PREFIX = "s3torchconnector_"


@pytest.fixture
def client(s3_server: S3Server) -> Iterator[S3Client]:
    with S3Client(REGION) as client:
        yield client


def some_requests(client: S3Client, bucket: str) -> None:
    with client.put_object(bucket, "k") as writer:
        writer.write(b"12345")
    client.get_object(bucket, "k").read()


def scraped(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    """The samples, by name and labels."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    samples = [sample for family in families for sample in family.samples]
    return {(each.name.removeprefix(_PREFIX), " ".join(each.labels.values())): each.value for each in samples}


def test_prometheus_scrapes_them(client: S3Client, bucket: str) -> None:
    some_requests(client, bucket)
    registry = CollectorRegistry()
    registry.register(MetricsCollector(prices=PRICES))
    before, of_before = scraped(registry), metrics.process()
    some_requests(client, bucket)
    now = scraped(registry)
    since = {name: value - before.get(name, 0) for name, value in now.items()}
    assert since["requests_total", "GetObject 200"] == 1
    assert since["requests_total", "PutObject 200"] == 1
    assert since["received_bytes_total", ""] == since["sent_bytes_total", ""] == 5
    assert since["cost_dollars_total", ""] == pytest.approx(1.001)
    assert now["connections", "idle"] == metrics.process().connections_idle > 0
    assert now["memory_limit_bytes", ""] == metrics.process().memory_limit
    times = (metrics.process() - of_before).first_byte["GetObject"]
    assert since["first_byte_seconds_count", "GetObject"] == times.count == 1
    assert since["first_byte_seconds_sum", "GetObject"] == pytest.approx(times.seconds)


def test_the_buckets_of_prometheus_are_cumulative(client: S3Client, bucket: str) -> None:
    some_requests(client, bucket)
    registry = CollectorRegistry()
    registry.register(MetricsCollector())
    times = metrics.process().first_byte["GetObject"]
    families = text_string_to_metric_families(generate_latest(registry).decode())
    (family,) = [each for each in families if each.name == _PREFIX + "first_byte_seconds"]
    buckets = {
        float(each.labels["le"]): each.value
        for each in family.samples
        if each.name.endswith("_bucket") and each.labels["operation"] == "GetObject"
    }
    assert len(buckets) == 22
    assert buckets[float("inf")] == times.count
    assert list(buckets.values()) == sorted(buckets.values())
    assert buckets[64.0] == times.count  # none took longer
    uppers = [*BOUNDS, float("inf")]
    for bound, upto in buckets.items():
        assert upto == sum(count for count, upper in zip(times.counts, uppers, strict=True) if upper <= bound)


def observed(reader: InMemoryMetricReader) -> dict[tuple[str, str], tuple[float, str]]:
    """The points, by name and attributes, with their unit."""
    data: Any = reader.get_metrics_data()
    found = [each for resource in data.resource_metrics for scope in resource.scope_metrics for each in scope.metrics]
    return {
        (each.name.removeprefix("s3torchconnector."), " ".join(map(str, point.attributes.values()))): (
            point.value,
            each.unit,
        )
        for each in found
        for point in each.data.data_points
    }


def test_opentelemetry_observes_them(client: S3Client, bucket: str) -> None:
    some_requests(client, bucket)
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    instrument(provider, prices=PRICES)
    before = observed(reader)
    some_requests(client, bucket)
    now = observed(reader)
    provider.shutdown()
    since = {name: value - before.get(name, (0.0, ""))[0] for name, (value, _) in now.items()}
    assert since["requests", "GetObject 200"] == since["requests", "PutObject 200"] == 1
    assert since["received", ""] == since["sent", ""] == 5
    assert since["cost", ""] == pytest.approx(1.001)
    assert now["connections", "idle"] == (metrics.process().connections_idle, "{connection}")
    assert now["memory.limit", ""] == (metrics.process().memory_limit, "By")
    assert now["requests", "GetObject 200"][1] == "{request}"
    value, unit = now["first_byte", "GetObject 0.99"]
    assert 0 < value < 30
    assert unit == "s"


def test_a_process_without_a_client_has_no_limit(client: S3Client, bucket: str) -> None:
    """As the parent of workers that do all the reading."""
    some_requests(client, bucket)
    in_forked_child(_has_no_limit)


def _has_no_limit() -> None:
    registry, reader = CollectorRegistry(), InMemoryMetricReader()
    registry.register(MetricsCollector())
    provider = MeterProvider([reader])
    instrument(provider)
    for exported in (scraped(registry), observed(reader)):
        names = {name for name, _ in exported}
        assert {"memory_bytes", "memory.usage"} & names
        assert not {"memory_limit_bytes", "memory.limit"} & names
