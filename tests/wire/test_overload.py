"""Overload: the limit as a pure value, permits in order, and goodput at a server that admits N requests a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3torchconnector import S3ClientConfig, S3IterableDataset, S3Reader
from s3torchconnector._errors import S3TimeoutError
from s3torchconnector._wire import CancelledByCaller, CancelToken
from s3torchconnector._wire._caller import Caller
from s3torchconnector._wire._concurrency import ConcurrencyLimit
from s3torchconnector._wire._deadline import Deadline
from s3torchconnector._wire._throttle import Throttle
from s3torchconnector._wire._tolerance import Tolerance
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.scripted import ScriptedServer
from tests.wire.support import REGION, get

pytestmark = pytest.mark.usefixtures("keys")
ADMITTED = 100.0  # requests a second
BURST = 10.0
SECONDS = 2.5
SLOW_DOWN = s3_error(503, "SlowDown")
BODY = response(200, b"x" * 100, {"ETag": '"e"'})


def _deadline(seconds: float = 60.0, token: CancelToken | None = None) -> Deadline:
    return Deadline(token or CancelToken(), time.perf_counter() + seconds)


# -- the limit ------------------------------------------------------------------------------------------------------

EVENTS = st.lists(st.tuples(st.booleans(), st.integers(0, 200), st.floats(0, 10)), max_size=200)


@given(st.integers(1, 200), EVENTS)
def test_the_limit_is_between_one_and_the_clients_most(most: int, events: list[tuple[bool, int, float]]) -> None:
    limit = ConcurrencyLimit(most)
    now = 0.0
    for refused, in_flight, seconds in events:
        now += seconds
        if refused:
            limit.refused(in_flight, now - seconds / 2, now)
        else:
            limit.succeeded()
        assert limit.allows(0)
        assert not limit.is_set or not limit.allows(most)


@given(st.integers(2, 200))
def test_a_refusal_takes_three_tenths_of_what_was_in_flight(in_flight: int) -> None:
    limit = ConcurrencyLimit(200)
    limit.refused(in_flight, 0.0, 1.0)
    allowed = next(count for count in range(300) if not limit.allows(count))
    assert allowed == max(1, int(0.7 * in_flight))


def test_refusals_of_one_round_trip_count_once() -> None:
    once, often = ConcurrencyLimit(100), ConcurrencyLimit(100)
    once.refused(100, 0.0, 1.0)
    for _ in range(50):
        often.refused(100, 0.5, 1.0)
    assert [once.allows(count) for count in range(100)] == [often.allows(count) for count in range(100)]
    often.refused(70, 1.5, 2.0)
    assert not often.allows(50)


@given(st.integers(1, 128))
def test_the_limit_grows_by_one_a_round_trip_and_then_ends(most: int) -> None:
    limit = ConcurrencyLimit(most)
    limit.refused(1, 0.0, 1.0)
    round_trips = 0
    while limit.is_set:
        allowed = next(count for count in range(most + 1) if not limit.allows(count))
        for _ in range(allowed):
            limit.succeeded()
        round_trips += 1
    assert most / 2 - 1 <= round_trips <= 2 * most + 1


# -- permits --------------------------------------------------------------------------------------------------------


def _overloaded(in_flight: int = 1) -> Throttle:
    throttle = Throttle(100)
    throttle.refused(in_flight, 0.0)
    return throttle


def test_no_permit_is_needed_before_the_first_refusal() -> None:
    throttle = Throttle(100)
    assert not throttle.active
    assert not throttle.acquire(_deadline())


def test_permits_are_given_in_order_and_kept_until_success() -> None:
    throttle = _overloaded()
    assert throttle.acquire(_deadline())
    waiters = [throttle._queue.join() for _ in range(4)]
    throttle.release()
    assert [waiter.admitted for waiter in waiters] == [True, False, False, False]
    throttle.succeeded()  # the limit is two now
    assert [waiter.admitted for waiter in waiters] == [True, True, True, False]


def test_a_waiter_that_gives_up_leaves_the_queue() -> None:
    throttle = _overloaded()
    assert throttle.acquire(_deadline())
    with pytest.raises(S3TimeoutError):
        throttle.acquire(_deadline(0.01))
    token = CancelToken()
    token.cancel()
    with pytest.raises(CancelledByCaller):
        throttle.acquire(_deadline(token=token))
    throttle.release()
    assert throttle.acquire(_deadline(0.0))


def test_no_permit_is_needed_once_all_is_well() -> None:
    throttle = Throttle(3)
    throttle.refused(3, 0.0)
    for _ in range(10):
        if throttle.acquire(_deadline(0.0)):
            throttle.succeeded()
    assert not throttle.active


# -- tolerance ------------------------------------------------------------------------------------------------------


@given(st.lists(st.none() | st.integers(0, 250), max_size=600), st.integers(1, 200))
def test_a_twentieth_of_refusals_is_tolerated_and_one_for_ten_connections(events: list[int | None], most: int) -> None:
    tolerance, left = Tolerance(most), Fraction(0)  # refusals
    for connections in events:  # of a refusal; None: a response
        if connections is None:
            tolerance.earn()
            left = min(1 + Fraction(most, 10), left + Fraction(1, 20))
        else:
            left = min(1 + Fraction(connections, 10), left)
            assert tolerance.spend(connections) == (left >= 1)
            left -= left >= 1


def _after_responses(count: int) -> tuple[Throttle, Tolerance]:
    tolerance = Tolerance(100)
    for _ in range(count):
        tolerance.earn()
    return Throttle(100, tolerance=tolerance), tolerance


def test_a_tolerated_refusal_throttles_nothing() -> None:
    throttle, _ = _after_responses(1000)
    for _ in range(5):
        throttle.refused(40, 0.0)
        assert not throttle.active
    throttle.refused(40, 0.0)
    assert throttle.active


def test_a_new_client_slows_down_at_the_first_refusal() -> None:
    throttle, _ = _after_responses(0)
    throttle.refused(50, 0.0)
    assert throttle.active


def test_a_tolerated_refusal_changes_no_limit() -> None:
    throttle, tolerance = _after_responses(0)
    throttle.refused(40, 0.0)
    before = repr(throttle), throttle._limit._limit
    for _ in range(20):
        tolerance.earn()
    throttle.refused(40, time.perf_counter() + 1.0)
    assert (repr(throttle), throttle._limit._limit) == before
    throttle.refused(40, time.perf_counter() + 1.0)
    assert throttle._limit._limit < before[1]


class Refusing:
    """A handler that refuses each so-many-th request, after so many."""

    def __init__(self, each: int, after: int = 0) -> None:
        self._each = each
        self._after = after
        self._lock = threading.Lock()
        self.requests = 0

    def __call__(self, request: ReceivedRequest) -> bytes:
        with self._lock:
            self.requests += 1
            refused = self.requests > self._after and self.requests % self._each == 0
            return SLOW_DOWN if refused else BODY


def _throttled(caller: Caller) -> bool:
    return any(throttle.active for _, throttle in caller._routes._known.values())


def test_a_client_stays_fast_if_one_request_in_fifty_is_refused() -> None:
    # Each refusal slowed it down before: to twelve requests a second, in the end.
    server_side = Refusing(each=50)
    with ScriptedServer(handler=server_side) as server:
        caller = Caller(REGION, server.endpoint, S3ClientConfig(hedge=False), "test/1")
        for _ in range(491):
            assert get(caller) == b"x" * 100
            assert not _throttled(caller)
        caller.close()
    assert server_side.requests == 501
    assert caller.figures.take() == (501, 10)


def test_a_dataset_stays_fast_if_one_request_in_fifty_is_refused() -> None:
    # 192 may be in flight: when the first one is refused, more than a hundred responses have been received.
    with ScriptedServer(handler=Refusing(each=50, after=300)) as server:
        uris = [f"s3://b/{number}" for number in range(500)]
        dataset = S3IterableDataset.from_objects(
            uris,
            region=REGION,
            endpoint=server.endpoint,
            transform=S3Reader.read,
            s3client_config=S3ClientConfig(hedge=False),
        )
        samples = iter(dataset)
        assert next(samples) == b"x" * 100
        caller = dataset._client._runtime().caller
        for sample in samples:
            assert sample == b"x" * 100
            assert not _throttled(caller)
        assert caller.figures.take() == (504, 4)


# -- goodput --------------------------------------------------------------------------------------------------------


class Admitting:
    """A handler that admits ``ADMITTED`` requests a second and responds to others with SlowDown.

    Attributes:
        admitted: when requests were admitted.
        refused: how many were refused.
    """

    def __init__(self, burst: float = BURST) -> None:
        self._lock = threading.Lock()
        self._tokens = self._burst = burst
        self._seen = time.perf_counter()
        self.admitted: list[float] = []
        self.refused = 0

    def __call__(self, request: ReceivedRequest) -> bytes:
        with self._lock:
            now = time.perf_counter()
            self._tokens = min(self._burst, self._tokens + (now - self._seen) * ADMITTED)
            self._seen = now
            if self._tokens < 1.0:
                self.refused += 1
                return SLOW_DOWN
            self._tokens -= 1.0
            self.admitted.append(now)
            return BODY

    def goodput(self, began: float, seconds: float) -> float:
        """Requests a second, without the burst that the server admits at first."""
        return (sum(began <= moment < began + seconds for moment in self.admitted) - self._burst) / seconds


def _repeat(act: Callable[[], object], threads: int, seconds: float) -> list[float]:
    """Have many threads call ``act`` again and again; how long each call took."""
    took: list[float] = []
    errors: list[BaseException] = []
    end = time.perf_counter() + seconds

    def run() -> None:
        try:
            while (began := time.perf_counter()) < end:
                act()
                took.append(time.perf_counter() - began)
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=run) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert errors == []
    return took


def test_goodput_at_ten_times_the_load_a_server_admits() -> None:
    server_side = Admitting()
    with ScriptedServer(handler=server_side) as server:
        caller = Caller(REGION, server.endpoint, S3ClientConfig(), "test/1")
        began = time.perf_counter()
        took = _repeat(lambda: get(caller), threads=64, seconds=SECONDS)
        caller.close()
    goodput = server_side.goodput(began, SECONDS)
    print(f"goodput {goodput:.0f}/s of {ADMITTED:.0f}, refused {server_side.refused}, longest {max(took):.2f} s")
    # 0.9 and more on a quiet machine; test_fairness has the goal, in virtual time.
    assert goodput >= 0.5 * ADMITTED
    # A fifth or so; without permits and a pace, five times as many.
    assert server_side.refused < len(server_side.admitted)
    # 64 requests are queued: each gets a permit within a second or so. Without permits, some take ten.
    assert max(took) < 8 * 64 / ADMITTED
