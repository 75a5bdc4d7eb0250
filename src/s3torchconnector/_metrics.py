"""What has been asked of S3, as values: they add up, and one is taken from a later one. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, TypeVar

from s3torchconnector._time_buckets import BOUNDS, BUCKETS

_MIDDLES = (BOUNDS[0], *(math.sqrt(lower * upper) for lower, upper in pairwise(BOUNDS)), BOUNDS[-1])

_NEITHER_LISTS_NOR_WRITES = ("GetObject", "HeadObject", "GetObjectTagging", "CreateSession")
_FREE = ("DeleteObject", "DeleteObjects", "AbortMultipartUpload")
_Key = TypeVar("_Key")


class Prices(NamedTuple):
    """Dollars for 1,000 requests, by default those of S3 Standard in us-east-1: https://aws.amazon.com/s3/pricing/

    Attributes:
        put: of a PUT, COPY, POST or LIST request.
        get: of any other request. DELETE requests, and those that abort an upload, are free.

    Example:
        >>> from s3torchconnector.metrics import Metrics, Prices
        >>> round(Metrics(requests={"GetObject": {206: 1_000_000}}).cost(Prices(put=0.0054, get=0.00043)), 6)
        0.43
    """

    put: float = 0.005
    get: float = 0.0004


@dataclass(frozen=True)
class Histogram:
    """How often which time was seen, in buckets whose bounds grow by a factor of 1.19, from 61 us to 64 s.

    Attributes:
        counts: by bucket: times up to ``BOUNDS[0]``, up to ``BOUNDS[1]`` and so on, and at last those above all bounds.

    Example:
        >>> from s3torchconnector.metrics import Histogram
        >>> times = Histogram.of([0.010] * 98 + [0.5] * 2)
        >>> times.count, 1.8 < times.seconds < 2.2, times.quantile(0.5) < 0.011 < 0.4 < times.quantile(0.99)
        (100, True, True)
    """

    counts: tuple[int, ...] = (0,) * BUCKETS

    @classmethod
    def of(cls, times: Iterable[float]) -> Histogram:
        """The histogram of these times, in seconds."""
        counts = [0] * BUCKETS
        for seconds in times:
            counts[bucket_of(seconds)] += 1
        return cls(tuple(counts))

    @property
    def count(self) -> int:
        """How many times were seen."""
        return sum(self.counts)

    @property
    def seconds(self) -> float:
        """All times together, as if each were in the middle of its bucket: at most 9 % too much or too little."""
        return float(sum(count * middle for count, middle in zip(self.counts, _MIDDLES, strict=True)))

    def quantile(self, rank: float) -> float:
        """The time that a share of ``rank`` of all times does not exceed, in seconds; not a number if there is none.

        It is in the same bucket as the exact one.
        """
        if not 0.0 <= rank <= 1.0:
            raise ValueError(f"a quantile has a rank from 0 to 1: {rank}")
        wanted = max(1.0, rank * self.count)
        before = 0
        for bucket, upto in enumerate(accumulate(self.counts)):
            if upto >= wanted:
                lower = BOUNDS[bucket - 1] if bucket else 0.0
                upper = BOUNDS[bucket] if bucket < len(BOUNDS) else lower
                return lower + (upper - lower) * (wanted - before) / (upto - before)
            before = upto
        return math.nan

    def __add__(self, other: Histogram) -> Histogram:
        return self._with(other, 1)

    def __sub__(self, before: Histogram) -> Histogram:
        return self._with(before, -1)

    def _with(self, other: Histogram, sign: int) -> Histogram:
        counts = tuple(mine + sign * its for mine, its in zip(self.counts, other.counts, strict=True))
        return Histogram(counts)


@dataclass(frozen=True)
class Metrics:
    """What was asked of S3, and what came of it. Values of clients, processes and ranks add up (``a + b``); ``now -
    before`` is what was done in between.

    Attributes:
        seconds: for how long this was counted; the longer one of a sum.
        requests: how many there were by operation and HTTP status, 0 if no response came: the connection broke, or
            nobody waited any more. Each time that one was sent again is a request.
        received_bytes, sent_bytes: of the bodies of responses and requests, without heads and TLS.
        retries: requests that followed a failure.
        throttles: responses by which S3 asked to send less (503 SlowDown, 429).
        hedges, hedges_won: requests that were sent a second time because the response was late, and those of them that
            had a response sooner. The other one of each pair has no status.
        first_byte: by operation, the times from when a request was begun to be sent to when its response began.
        connections_in_use, connections_idle: that are open now, or being opened.
        memory_used, memory_limit: bytes that transfers hold now, and may hold (``memory_budget``).

    Example:
        >>> from s3torchconnector import S3Client
        >>> with S3Client("us-east-1") as client:
        ...     data = client.get_object("my-bucket", "images/0.png").read()
        ...     client.metrics().requests, client.metrics().received_bytes
        ({'GetObject': {200: 1}}, 10)
    """

    seconds: float = 0.0
    requests: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    received_bytes: int = 0
    sent_bytes: int = 0
    retries: int = 0
    throttles: int = 0
    hedges: int = 0
    hedges_won: int = 0
    first_byte: Mapping[str, Histogram] = field(default_factory=dict)
    connections_in_use: int = 0
    connections_idle: int = 0
    memory_used: int = 0
    memory_limit: int = 0

    @property
    def request_count(self) -> int:
        """How many requests there were in all."""
        return sum(sum(statuses.values()) for statuses in self.requests.values())

    def cost(self, prices: Prices | None = None) -> float:
        """What Amazon asks for these requests, in dollars: an estimate, by default with the prices of us-east-1.

        S3 bills neither redirects nor its own errors (3xx, 5xx), see
        https://docs.aws.amazon.com/AmazonS3/latest/userguide/ErrorCodeBilling.html. A request without a response counts
        as billed. Storage, retrieval and the transfer of data are not counted.
        """
        prices, dollars = prices or Prices(), 0.0
        for operation, statuses in self.requests.items():
            billed = sum(count for status, count in statuses.items() if status // 100 not in (3, 5))
            dollars += billed * _price_of(operation, prices) / 1000
        return dollars

    def as_dict(self, prices: Prices | None = None) -> dict[str, float]:
        """The figures by name, as loggers take them: ``{"requests/GetObject/206": 7, "received_bytes": 512, ...}``."""
        figures: dict[str, float] = {"seconds": self.seconds, "requests": self.request_count}
        for operation, statuses in sorted(self.requests.items()):
            figures |= {f"requests/{operation}/{status or 'none'}": n for status, n in sorted(statuses.items())}
        figures |= {name: getattr(self, name) for name in (*_COUNTERS, *_GAUGES)}
        for operation, times in sorted(self.first_byte.items()):
            figures[f"first_byte_seconds/{operation}/p50"] = times.quantile(0.5)
            figures[f"first_byte_seconds/{operation}/p99"] = times.quantile(0.99)
        return {**figures, "cost_dollars": self.cost(prices)}

    def __add__(self, other: Metrics) -> Metrics:
        fields = {name: getattr(self, name) + getattr(other, name) for name in (*_COUNTERS, *_GAUGES)}
        return Metrics(
            max(self.seconds, other.seconds),
            _combined(self.requests, other.requests, lambda mine, its: _combined(mine, its, lambda a, b: a + b)),
            first_byte=_combined(self.first_byte, other.first_byte, lambda mine, its: mine + its),
            **fields,
        )

    def __sub__(self, before: Metrics) -> Metrics:
        fields = {name: getattr(self, name) - getattr(before, name) for name in _COUNTERS}
        fields |= {name: getattr(self, name) for name in _GAUGES}
        requests = {
            operation: {status: n - before.requests.get(operation, {}).get(status, 0) for status, n in of_it.items()}
            for operation, of_it in self.requests.items()
        }
        times = {name: each - before.first_byte.get(name, Histogram()) for name, each in self.first_byte.items()}
        return Metrics(
            self.seconds - before.seconds,
            {name: kept for name, each in requests.items() if (kept := {status: n for status, n in each.items() if n})},
            first_byte={name: each for name, each in times.items() if each.count},
            **fields,
        )

    def __str__(self) -> str:
        """One line, for a log."""
        parts = [f"{self.request_count:,} requests", f"{_bytes(self.received_bytes)} received"]
        parts += [f"{_bytes(self.sent_bytes)} sent"] if self.sent_bytes else []
        parts += [f"in {self.seconds:.1f} s"]
        told = ("retries", "throttles", "hedges")
        parts += [f"{count:,} {name}" for name in told if (count := getattr(self, name))]
        parts += [
            f"{operation} p50 {1e3 * times.quantile(0.5):.0f} ms p99 {1e3 * times.quantile(0.99):.0f} ms"
            for operation, times in sorted(self.first_byte.items())
        ]
        parts += [f"{self.connections_in_use} connections in use, {self.connections_idle} idle"]
        parts += [f"{_bytes(self.memory_used)} of {_bytes(self.memory_limit)} of memory", f"${self.cost():.4f}"]
        return ", ".join(parts)


_COUNTERS = ("received_bytes", "sent_bytes", "retries", "throttles", "hedges", "hedges_won")
_GAUGES = ("connections_in_use", "connections_idle", "memory_used", "memory_limit")


def bucket_of(seconds: float) -> int:
    """The number of the bucket of a histogram that a time belongs to."""
    return bisect_left(BOUNDS, seconds)


def _price_of(operation: str, prices: Prices) -> float:
    if operation in _FREE:
        return 0.0
    return prices.get if operation in _NEITHER_LISTS_NOR_WRITES else prices.put


def _combined(mine: Mapping[_Key, Any], its: Mapping[_Key, Any], add: Any) -> dict[_Key, Any]:
    return {**mine, **{key: add(mine[key], value) if key in mine else value for key, value in its.items()}}


def _bytes(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError
