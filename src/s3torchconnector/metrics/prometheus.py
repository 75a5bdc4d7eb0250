"""Figures for Prometheus: ``REGISTRY.register(MetricsCollector())``. Needs the extra ``prometheus``."""

from __future__ import annotations

from collections.abc import Iterator

from s3torchconnector._metrics import Histogram, Metrics, Prices
from s3torchconnector._time_buckets import BOUNDS
from s3torchconnector.metrics import process

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
    from prometheus_client.registry import Collector
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "prometheus_client":
        raise
    raise ModuleNotFoundError(
        f"s3torchconnector.metrics.prometheus needs prometheus-client, which is not installed ({error}): "
        "from the checkout, pip install '.[prometheus]'",
        name=error.name,
    ) from error

__all__ = ["MetricsCollector"]

_COUNTERS = {
    "received_bytes": "Bytes of the bodies of responses",
    "sent_bytes": "Bytes of the bodies of requests",
    "retries": "Requests that followed a failure",
    "throttles": "Responses by which S3 asked to send less",
    "hedges": "Requests sent a second time because the response was late",
    "hedges_won": "Those that had a response sooner than the first one",
}
_EVERY = 4  # bounds of a histogram that make one of Prometheus: a time series each, for each operation


class MetricsCollector(Collector):
    """Collects ``metrics.process()`` whenever Prometheus asks. It holds nothing, and may be registered more than once.

    Args:
        children: whether to count the processes that this one has started, see ``metrics.process``.
        prices: for ``s3torchconnector_cost_dollars_total``, by default those of us-east-1.

    Example:
        >>> from prometheus_client import CollectorRegistry, generate_latest
        >>> from s3torchconnector.metrics.prometheus import MetricsCollector
        >>> registry = CollectorRegistry()  # or prometheus_client.REGISTRY
        >>> registry.register(MetricsCollector())
        >>> b"s3torchconnector_received_bytes_total" in generate_latest(registry)
        True
    """

    def __init__(self, *, children: bool = True, prices: Prices | None = None) -> None:
        self._children = children
        self._prices = prices

    def collect(self) -> Iterator[Metric]:
        """The metrics, in the form of ``prometheus_client``."""
        metrics = process(children=self._children)
        yield _requests(metrics)
        for name, help_text in _COUNTERS.items():
            yield CounterMetricFamily(_name(name), help_text, value=getattr(metrics, name))
        dollars = "Estimated price of the requests in US dollars, without transfer and storage"
        yield CounterMetricFamily(_name("cost_dollars"), dollars, value=metrics.cost(self._prices))
        yield _first_byte(metrics)
        connections = GaugeMetricFamily(_name("connections"), "Open connections", labels=["state"])
        connections.add_metric(["in_use"], metrics.connections_in_use)
        connections.add_metric(["idle"], metrics.connections_idle)
        yield connections
        yield GaugeMetricFamily(_name("memory_bytes"), "Bytes that transfers hold", value=metrics.memory_used)
        if metrics.memory_limit:  # a process without a client, whose workers read, has none
            limit = "Bytes that transfers may hold"
            yield GaugeMetricFamily(_name("memory_limit_bytes"), limit, value=metrics.memory_limit)


def _name(name: str) -> str:
    return f"s3torchconnector_{name}"


def _requests(metrics: Metrics) -> CounterMetricFamily:
    text = "Requests by operation and HTTP status; none: no response came"
    family = CounterMetricFamily(_name("requests"), text, labels=["operation", "status"])
    for operation, statuses in metrics.requests.items():
        for status, count in statuses.items():
            family.add_metric([operation, str(status or "none")], count)
    return family


def _first_byte(metrics: Metrics) -> HistogramMetricFamily:
    text = "Seconds from when a request was begun to be sent to when its response began"
    family = HistogramMetricFamily(_name("first_byte_seconds"), text, labels=["operation"])
    for operation, times in metrics.first_byte.items():
        family.add_metric([operation], buckets=_buckets(times), sum_value=times.seconds)
    return family


def _buckets(times: Histogram) -> list[tuple[str, float]]:
    upto = [(str(BOUNDS[i]), float(sum(times.counts[: i + 1]))) for i in range(0, len(BOUNDS), _EVERY)]
    return [*upto, ("+Inf", float(times.count))]
