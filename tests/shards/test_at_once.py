"""Jobs on threads: results come in order, and an error ends those that run."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from s3torchconnector._datasets._at_once import in_order

_LONG = 30.0  # seconds, within which a thread starts on any machine


def test_results_come_in_order_and_items_are_taken_as_needed() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for i in range(100):
            taken.append(i)
            yield i

    results = in_order(lambda i: -i, items(), 3, 6)
    assert next(results) == 0
    assert len(taken) == 6
    assert list(results) == [-i for i in range(1, 100)]


@pytest.mark.parametrize("leaves", [False, True])
def test_running_jobs_are_asked_to_end(leaves: bool) -> None:
    running, stopped, ended = threading.Event(), threading.Event(), list[bool]()

    def job(i: int) -> int:
        if i:
            running.set()
            ended.append(stopped.wait(_LONG))
        elif running.wait(_LONG) and not leaves:
            raise ValueError("no such thing")
        return i

    results = in_order(job, range(3), 2, 2, stopped.set)
    if leaves:
        assert next(results) == 0
        results.close()  # type: ignore[attr-defined]
    else:
        with pytest.raises(ValueError, match="no such thing"):
            next(results)
    assert ended == [True]


def test_no_job_is_begun_after_an_error() -> None:
    begun: list[int] = []

    def job(i: int) -> int:
        begun.append(i)
        return 1 // i

    with pytest.raises(ZeroDivisionError):
        list(in_order(job, range(1000), 1, 2))
    assert len(begun) < 10


def test_a_job_that_does_not_end_delays_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3torchconnector._datasets._at_once._SECONDS_TO_STOP", 0.01)
    release, ended = threading.Event(), threading.Event()

    def job(i: int) -> int:
        if i:
            release.wait(_LONG)
            ended.set()
        return i

    results = in_order(job, range(2), 2, 2)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert not ended.is_set()
    release.set()
    assert ended.wait(_LONG)
