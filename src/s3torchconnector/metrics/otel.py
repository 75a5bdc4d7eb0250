"""Figures for OpenTelemetry: ``instrument()``. Needs a ``MeterProvider``, and the extra ``otel``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from s3torchconnector._metrics import Metrics, Prices
from s3torchconnector._version import __version__
from s3torchconnector.metrics import process

try:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter_provider
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "opentelemetry":
        raise
    raise ModuleNotFoundError(
        f"s3torchconnector.metrics.otel needs opentelemetry-api, which is not installed ({error}): "
        "from the checkout, pip install '.[otel]'",
        name=error.name,
    ) from error

__all__ = ["instrument"]

_Observe = Callable[[Metrics], Iterable[Observation]]
_OPERATION, _STATUS = "rpc.method", "http.response.status_code"  # of the semantic conventions
_QUANTILES = (0.5, 0.99)


def instrument(
    meter_provider: MeterProvider | None = None, *, children: bool = True, prices: Prices | None = None
) -> None:
    """Have OpenTelemetry observe ``metrics.process()`` whenever it collects. Call it once for each provider.

    Args:
        meter_provider: by default the global one, which the program sets before.
        children: whether to count the processes that this one has started, see ``metrics.process``. Pass False if these
            are instrumented, too.
        prices: for ``s3torchconnector.cost``, by default those of us-east-1.
    """
    meter = (meter_provider or get_meter_provider()).get_meter("s3torchconnector", __version__)

    def callback(observe: _Observe) -> list[Callable[[CallbackOptions], Iterable[Observation]]]:
        return [lambda _: observe(process(children=children))]

    def counter(name: str, unit: str, text: str, observe: _Observe) -> None:
        meter.create_observable_counter(f"s3torchconnector.{name}", callback(observe), unit, text)

    def level(name: str, unit: str, text: str, observe: _Observe) -> None:
        meter.create_observable_up_down_counter(f"s3torchconnector.{name}", callback(observe), unit, text)

    counter("requests", "{request}", "Requests by operation and status", _requests)
    counter("received", "By", "Bytes of the bodies of responses", _field("received_bytes"))
    counter("sent", "By", "Bytes of the bodies of requests", _field("sent_bytes"))
    counter("retries", "{request}", "Requests that followed a failure", _field("retries"))
    counter("throttles", "{response}", "Responses by which S3 asked to send less", _field("throttles"))
    counter("hedges", "{request}", "Requests sent twice because the response was late", _field("hedges"))
    counter("hedges.won", "{request}", "Those whose second one had the response first", _field("hedges_won"))
    counter("cost", "{USD}", "Estimated price of the requests", lambda found: [Observation(found.cost(prices))])
    level("connections", "{connection}", "Open connections", _connections)
    level("memory.usage", "By", "Bytes that transfers hold", _field("memory_used"))
    level("memory.limit", "By", "Bytes that transfers may hold", _memory_limit)
    meter.create_observable_gauge(
        "s3torchconnector.first_byte",
        callback(_SinceLast()),
        "s",
        "Quantiles of the time from request to response, since the last collection",
    )


def _field(name: str) -> _Observe:
    return lambda metrics: [Observation(getattr(metrics, name))]


def _requests(metrics: Metrics) -> Iterator[Observation]:
    for operation, statuses in metrics.requests.items():
        for status, count in statuses.items():
            outcome = {_STATUS: status} if status else {"error.type": "no_response"}
            yield Observation(count, {_OPERATION: operation, **outcome})


def _memory_limit(metrics: Metrics) -> list[Observation]:
    # A process without a client, whose workers read, has none.
    return [Observation(metrics.memory_limit)] if metrics.memory_limit else []


def _connections(metrics: Metrics) -> list[Observation]:
    states = {"used": metrics.connections_in_use, "idle": metrics.connections_idle}
    return [Observation(count, {"state": state}) for state, count in states.items()]


class _SinceLast:
    """The quantiles of what has come since the last collection. Not for two readers of one provider."""

    def __init__(self) -> None:
        self._before = Metrics()

    def __call__(self, metrics: Metrics) -> Iterator[Observation]:
        forked = metrics.seconds < self._before.seconds  # in the child, all begins at zero
        since, self._before = metrics - (Metrics() if forked else self._before), metrics
        for operation, times in since.first_byte.items():
            for rank in _QUANTILES:
                yield Observation(times.quantile(rank), {_OPERATION: operation, "quantile": rank})
