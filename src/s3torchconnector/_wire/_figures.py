"""What one client asks of S3, counted for ``S3Client.metrics``; see ``_counts``."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Mapping
from typing import TYPE_CHECKING

from s3torchconnector._late_imports import no_fork
from s3torchconnector._time_buckets import BOUNDS, BUCKETS, NO_RESPONSE
from s3torchconnector._wire._counts import counts
from s3torchconnector._wire._operations import OPERATIONS, Request
from s3torchconnector._wire._response import Response

if TYPE_CHECKING:
    from s3torchconnector._metrics import Metrics

# The codes of an operation: its number, plus the HTTP status; and plus a thousand and the number of a bucket for how
# often a first byte took how long.
_OF_ONE, _BUCKETS = 10_000, 1000
_OPERATIONS = (*OPERATIONS, "other")
_BASES = {operation: _OF_ONE * number for number, operation in enumerate(_OPERATIONS, 1)}
_OTHER = _BASES["other"]
_CODES = range(1, 7)  # of all others; each is its own place
RECEIVED, SENT, RETRIES, THROTTLES, HEDGES, HEDGES_WON = map(counts.place, _CODES)
_places = counts.places
_request_places: dict[int, None] = {}


class Figures:
    """What one client has done in this process. Thread-safe.

    The lock is re-entrant, and nothing is called while it is held: a signal handler or finaliser may make requests.
    """

    def __init__(self) -> None:
        self._values = counts.new_values(self)
        self._before = counts.by_code(self._values)  # of the client that had the array before
        self._lock = threading.RLock()
        self._since = time.monotonic()
        self._taken = self._total()

    def note_end(self, request: Request, response: Response | None = None) -> None:
        """A request has ended: with this response, received as far as it goes, or without one."""
        base = _BASES.get(request.operation, _OTHER)
        if response is None:
            self.add(_places.get(base + NO_RESPONSE) or _request_place(base + NO_RESPONSE))
            return
        if request.body:
            self.add(SENT, sum(memoryview(buffer).nbytes for buffer in request.body))
        code, received, values = base + response.status, response.received, self._values
        status = _places.get(code) or _request_place(code)
        code = base + _BUCKETS + bisect_left(BOUNDS, response.waited)
        bucket = _places.get(code) or counts.place(code)
        with self._lock:
            values[status] += 1
            values[bucket] += 1
            values[RECEIVED] += received

    def add(self, place: int, count: int = 1) -> None:
        """Add to another number."""
        with self._lock:
            self._values[place] += count

    def take(self) -> tuple[int, int]:
        """How many requests and retries there were since this was called last."""
        before, self._taken = self._taken, self._total()
        return self._taken[0] - before[0], self._taken[1] - before[1]

    def _total(self) -> tuple[int, int]:
        values = self._values
        return sum([values[place] for place in list(_request_places)]), values[RETRIES]

    def metrics(self) -> Metrics:
        """The numbers by name."""
        now = counts.by_code(self._values)
        since = {code: value - self._before.get(code, 0) for code, value in now.items()}
        return metrics_of(since, time.monotonic() - self._since)


def _request_place(code: int) -> int:
    place = counts.place(code)
    _request_places[place] = None
    return place


def process_metrics(*, children: bool) -> Metrics:
    """Those of all clients of this process, and if wanted of the processes that it has started."""
    found = counts.with_children() if children else counts.own()
    return metrics_of(found, time.monotonic() - counts.since)


def metrics_of(values: Mapping[int, int], seconds: float) -> Metrics:
    """What values by code say."""
    with no_fork:
        from s3torchconnector._metrics import Histogram, Metrics  # here: a program that only reads does without

    requests: dict[str, dict[int, int]] = {}
    times: dict[str, list[int]] = {}
    for code, value in sorted(values.items()):
        number, kind = divmod(code, _OF_ONE)
        if number and kind < _BUCKETS and value:
            requests.setdefault(_OPERATIONS[number - 1], {})[kind] = value
        elif number and value:
            times.setdefault(_OPERATIONS[number - 1], [0] * BUCKETS)[kind - _BUCKETS] = value
    names = ("received_bytes", "sent_bytes", "retries", "throttles", "hedges", "hedges_won")
    return Metrics(
        seconds,
        requests,
        first_byte={name: Histogram(tuple(each)) for name, each in times.items()},
        **{name: values.get(code, 0) for name, code in zip(names, _CODES, strict=True)},
    )
