"""Many clients at a server that admits so many requests a second: a simulation of the policies, in virtual time.

The policies are the package's own (``Throttle`` with its ``Tolerance``, ``ConcurrencyLimit``, ``FairQueue`` and
``Pace``, and ``RetryRule``); the network, the server's token bucket and the order of calls of ``Caller.call`` are
modelled here. So an hour of a thousand clients takes seconds, and the same seed gives the same figures.
"""

from __future__ import annotations

import heapq
import itertools
import random
import statistics
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from s3torchconnector import S3ClientConfig
from s3torchconnector._errors import S3ThrottledError
from s3torchconnector._wire._call_state import MOST_PACED_REFUSALS
from s3torchconnector._wire._fair_queue import Waiter
from s3torchconnector._wire._retry import RetryPolicy, RetryQuota, RetryRule
from s3torchconnector._wire._throttle import Throttle
from s3torchconnector._wire._tolerance import Tolerance

_SLOW_DOWN = S3ThrottledError("the server asks to slow down", status=503, code="SlowDown")
_SAVED = 0.1  # seconds' worth of requests that the server admits at once after a pause
_CONNECTIONS = 192
GOODPUT, SHARE, WAIT = 0.8, 0.5, 10.0  # the goals: at least, at least, at most


class Scenario(NamedTuple):
    """Clients that ask as fast as they may, each from so many threads.

    Attributes:
        admitted: requests a second, by the server.
        seconds: how long they ask.
        latency: seconds that a request and its response are on their way, on average.
        late: seconds after which the second half of the clients begins; only what comes then is counted.
        refused: the share of requests that the server refuses though it could serve them.
    """

    clients: int
    admitted: float
    threads: int = 1
    seconds: float = 300.0
    latency: float = 0.02
    late: float = 0.0
    refused: float = 0.0

    def __str__(self) -> str:
        late = f", half of them {self.late:g} s late" if self.late else ""
        refused = f", {self.refused:.0%} refused without need" if self.refused else ""
        return (
            f"{self.clients} clients x {self.threads} at {self.admitted:g} a second for {self.seconds:g} s, "
            f"{self.latency * 1e3:g} ms{late}{refused}"
        )


class Outcome(NamedTuple):
    """What became of a scenario.

    Attributes:
        goodput: requests that were served, of those that could have been.
        served: requests of each client, fewest first.
        waits: seconds from the beginning of each request to its response, shortest first.
        refused: refusals for each request that was served.
        failed: requests that failed for good.
    """

    goodput: float
    served: list[int]
    waits: list[float]
    refused: float
    failed: int

    @property
    def share(self) -> float:
        """The share of the client that was served least, divided by the median."""
        return self.served[0] / max(1.0, statistics.median(self.served))

    @property
    def longest(self) -> float:
        """The longest wait, of the mean."""
        return self.waits[-1] / statistics.fmean(self.waits)

    @property
    def is_fair(self) -> bool:
        return self.goodput >= GOODPUT and self.share >= SHARE and self.longest <= WAIT and not self.failed

    def __str__(self) -> str:
        least, median, most = self.served[0], statistics.median(self.served), self.served[-1]
        return (
            f"goodput {self.goodput:.0%}; served {least} .. {median:g} .. {most} (least {self.share:.2f} of median); "
            f"wait {statistics.fmean(self.waits):.2f} s, longest {self.waits[-1]:.1f} s ({self.longest:.1f} times); "
            f"{self.refused:.2f} refusals a request"
        )


class _Operation:
    """One request, through all its attempts; see ``CallState``."""

    def __init__(self, client: _Client, began: float) -> None:
        self.client = client
        self.began = self.sent = began
        self.put_off = 0
        self.has_turn = False


class _Client:
    def __init__(self, throttle: Throttle, tolerance: Tolerance, rule: RetryRule) -> None:
        self.throttle = throttle
        self.tolerance = tolerance
        self.rule = rule
        self.waiting: deque[tuple[Waiter, _Operation]] = deque()
        self.in_flight = 0
        self.connections = 0  # as many as were ever in flight
        self.served = 0


class _Simulation:
    def __init__(self, scenario: Scenario, seed: int) -> None:
        self._scenario = scenario
        self._random = random.Random(seed)
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[_Operation], None], _Operation]] = []
        self._numbers = itertools.count()
        self._tokens = self._saved = max(1.0, scenario.admitted * _SAVED)
        self._seen = 0.0
        self._waits: list[float] = []
        self._refused = self._failed = 0
        self._clients = [self._client() for _ in range(scenario.clients)]
        for number, client in enumerate(self._clients):
            begins = scenario.late if number >= scenario.clients / 2 else 0.0
            for _ in range(scenario.threads):
                self._after(begins + self._random.uniform(0.0, 0.05), self._begin, _Operation(client, 0.0))

    def run(self) -> Outcome:
        while self._events and self._events[0][0] < self._scenario.seconds:
            self._now, _, act, operation = heapq.heappop(self._events)
            act(operation)
        served = sorted(client.served for client in self._clients)
        possible = self._scenario.admitted * (self._scenario.seconds - self._scenario.late) + self._saved
        # Those that still wait count, too: the longest wait may be one of theirs.
        under_way = {id(event[3]): event[3] for event in self._events}
        under_way.update((id(each), each) for client in self._clients for _, each in client.waiting)
        waits = self._waits + [self._now - operation.began for operation in under_way.values()]
        total = sum(served)
        return Outcome(total / possible, served, sorted(waits), self._refused / max(1, total), self._failed)

    def _client(self) -> _Client:
        tolerance = Tolerance(_CONNECTIONS)
        throttle = Throttle(_CONNECTIONS, lambda: self._now, self._random.random, tolerance)
        rule = RetryRule(RetryPolicy(S3ClientConfig().max_attempts), RetryQuota(), self._random.random)
        return _Client(throttle, tolerance, rule)

    def _after(self, seconds: float, act: Callable[[_Operation], None], operation: _Operation) -> None:
        heapq.heappush(self._events, (self._now + seconds, next(self._numbers), act, operation))

    def _begin(self, operation: _Operation) -> None:
        self._attempt(_Operation(operation.client, self._now))

    def _attempt(self, operation: _Operation) -> None:
        client = operation.client
        waiter = client.throttle.request_permit() if client.throttle.active else None
        if waiter is None:
            self._send(operation)
        elif waiter.admitted:
            self._use_turn(operation)
        else:
            client.waiting.append((waiter, operation))

    def _use_turn(self, operation: _Operation) -> None:
        operation.has_turn = True
        self._after(operation.client.throttle.pause(), self._send, operation)

    def _send(self, operation: _Operation) -> None:
        operation.sent = self._now
        client = operation.client
        client.in_flight += 1
        client.connections = max(client.connections, client.in_flight)
        self._after(self._way(), self._arrive, operation)

    def _arrive(self, operation: _Operation) -> None:
        self._tokens = min(self._saved, self._tokens + (self._now - self._seen) * self._scenario.admitted)
        self._seen = self._now
        share = self._scenario.refused
        admitted = self._tokens >= 1.0 and not (share and self._random.random() < share)
        self._tokens -= admitted
        self._after(self._way(), self._answer if admitted else self._refuse, operation)

    def _way(self) -> float:
        return self._scenario.latency / 2.0 * self._random.uniform(0.5, 1.5)

    def _answer(self, operation: _Operation) -> None:
        client = operation.client
        client.in_flight -= 1
        client.tolerance.earn()
        if self._now >= self._scenario.late:
            client.served += 1
            self._waits.append(self._now - max(operation.began, self._scenario.late))
        if operation.has_turn:
            client.throttle.succeeded()
            while client.waiting and client.waiting[0][0].admitted:
                self._use_turn(client.waiting.popleft()[1])
        self._begin(operation)

    def _refuse(self, operation: _Operation) -> None:
        client = operation.client
        client.throttle.refused(client.in_flight, operation.sent, client.connections)
        client.in_flight -= 1
        self._refused += self._now >= self._scenario.late
        operation.put_off += 1
        in_a_row = min(operation.put_off, MOST_PACED_REFUSALS) if operation.has_turn else None
        delay = client.rule.delay(_SLOW_DOWN, operation.put_off, in_a_row)
        if delay is None:
            self._failed += 1
        elif operation.has_turn:
            self._after(max(delay, client.throttle.pause()), self._send, operation)
        else:
            self._after(delay, self._attempt, operation)


def simulate(scenario: Scenario, seed: int = 1) -> Outcome:
    """The outcome of ``scenario``; the same for the same ``seed``."""
    return _Simulation(scenario, seed).run()
