"""Many clients of a server that admits few requests: each gets its share, none waits long, and capacity is used.

``make simulate`` does the same with more clients, for longer, and draws a picture.
"""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.fairness import GOODPUT, SHARE, WAIT, Scenario, simulate
from s3torchconnector._wire._pace import Pace
from s3torchconnector._wire._throttle import Throttle


@pytest.mark.parametrize(
    "scenario",
    [
        Scenario(40, 100.0, seconds=120.0),
        Scenario(40, 100.0, threads=8, seconds=120.0),
        Scenario(20, 100.0, threads=4, seconds=200.0, late=100.0),
        Scenario(200, 100.0, seconds=200.0),
        Scenario(1, 100.0, threads=64, seconds=60.0),
        Scenario(1, 3000.0, threads=192, seconds=10.0, latency=0.03, refused=0.03),
        Scenario(1, 1000.0, threads=64, seconds=30.0, refused=0.02),
        Scenario(8, 1000.0, threads=8, seconds=60.0, refused=0.01),
    ],
    ids=str,
)
def test_clients_share_what_a_server_admits(scenario: Scenario) -> None:
    outcome = simulate(scenario)
    print(outcome)
    assert outcome.goodput >= GOODPUT
    assert outcome.share >= SHARE
    assert outcome.longest <= WAIT
    assert outcome.failed == 0


def test_a_simulation_can_be_repeated() -> None:
    scenario = Scenario(10, 100.0, seconds=5.0)
    assert simulate(scenario, 7) == simulate(scenario, 7) != simulate(scenario, 8)


# -- the pace as a pure value ---------------------------------------------------------------------------------------


def paced(now: float = 100.0, *, in_flight: int = 1, round_trip: float = 0.1) -> Pace:
    pace = Pace(lambda: 0.5)
    pace.refused(in_flight, now - round_trip, now)
    return pace


def test_there_is_no_pace_before_a_refusal_or_after_lift() -> None:
    pace = Pace(lambda: 0.5)
    assert [pace.reserve(5.0) for _ in range(3)] == [5.0] * 3
    pace = paced()
    pace.reserve(100.0)
    assert pace.reserve(100.0) > 100.0
    assert pace.limits
    pace.lift()
    assert not pace.limits
    assert [pace.reserve(100.0) for _ in range(3)] == [100.0] * 3


def test_the_first_pace_is_a_little_less_than_the_rate_so_far() -> None:
    pace = paced(in_flight=10, round_trip=0.1)  # a hundred a second
    moments = [pace.reserve(100.0) for _ in range(10)]
    gaps = [later - sooner for sooner, later in itertools.pairwise(moments)]
    assert gaps == pytest.approx([1 / 90] * 9)


def test_a_refused_request_is_sent_again_before_new_ones() -> None:
    pace = paced()
    first = pace.reserve(100.0)
    pace.refused(1, first, first + 0.001)
    again = pace.reserve(first + 0.001)
    pace.succeeded(again + 0.001)
    then = pace.reserve(again + 0.001)
    assert (then - again) / (again - first) > 5


EVENTS = st.lists(st.tuples(st.booleans(), st.floats(0.0, 10.0), st.integers(1, 200)), max_size=100)


@given(EVENTS, st.floats(0.0, 1.0, exclude_max=True))
def test_no_pause_is_endless_and_none_is_negative(events: list[tuple[bool, float, int]], drawn: float) -> None:
    pace, now = Pace(lambda: drawn), 0.0
    for refused, seconds, in_flight in events:
        now += seconds
        if refused:
            pace.refused(in_flight, now - seconds, now)
        else:
            pace.succeeded(now)
        moment = pace.reserve(now)
        assert now <= moment < math.inf
        assert moment - now <= 2 * 20.0 * 1.3
        now = moment


def test_a_throttle_paces_until_all_is_well() -> None:
    now = [0.0]
    throttle = Throttle(2, lambda: now[0], lambda: 0.5)
    throttle.refused(1, -0.1)
    assert throttle.active
    paused = 0
    for _ in range(1000):
        waiter = throttle.request_permit()
        if waiter is None:
            break
        assert waiter.admitted
        pause = throttle.pause()
        paused += pause > 0.0
        now[0] += pause + 0.05
        throttle.succeeded()
    assert not throttle.active
    assert throttle.pause() == 0.0
    assert paused < 50
