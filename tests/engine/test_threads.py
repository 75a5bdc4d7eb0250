"""Every thread has a name that says what it is for, and what it does can be read off its stack."""

from __future__ import annotations

import threading
import weakref

import pytest

from s3torchconnector import S3Client
from s3torchconnector._activity import activities, activity
from s3torchconnector._threads import rename_thread, start_thread
from s3torchconnector._transfer.engine._budget import BUFFER_SIZE, ByteBudget
from s3torchconnector._transfer.engine._workers import Lane, Workers
from tests.reading.support import wait_until

TIMEOUT = 30.0


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def test_a_thread_has_its_name_while_it_runs() -> None:
    release, renamed, seen = threading.Event(), threading.Event(), []

    def job(argument: str) -> None:
        seen.append((argument, threading.current_thread().name, rename_thread("something else")))
        renamed.set()
        release.wait(TIMEOUT)

    start_thread("test", job, "argument")
    assert renamed.wait(TIMEOUT)
    assert seen == [("argument", "s3torchconnector test", "s3torchconnector test")]
    assert "s3torchconnector something else" in names()
    release.set()
    wait_until(lambda: "s3torchconnector something else" not in names())


def test_a_thread_that_fails_leaves_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", errors.append)
    start_thread("that fails", lambda: 1 // 0)
    wait_until(lambda: bool(errors) and "s3torchconnector that fails" not in names())


def test_workers_and_the_collector_have_names() -> None:
    before, release = set(threading.enumerate()), threading.Event()
    client = S3Client("us-east-1", endpoint="http://127.0.0.1:1")
    for _ in range(3):
        client._runtime().workers.submit(release.wait)
    wait_until(lambda: len({each.name for each in set(threading.enumerate()) - before if " worker " in each.name}) == 3)
    assert "s3torchconnector collector" in names()
    release.set()
    client.close()
    wait_until(lambda: not [each for each in set(threading.enumerate()) - before if " worker " in each.name])


def test_an_idle_thread_keeps_none_of_its_jobs_alive() -> None:
    """Neither the first, with which it was started, nor a later one: a job has the bytes and errors of its object."""

    class Job:
        def __call__(self) -> None:
            started.append(threading.current_thread())

    workers, started, jobs = Workers(1), [], []
    for count in (1, 2):
        job = Job()
        jobs.append(weakref.ref(job))
        workers.submit(job)
        del job
        wait_until(lambda count=count: len(started) == count and "1 idle" in repr(workers))
    wait_until(lambda: [job() for job in jobs] == [None, None])
    assert "1 idle" in repr(workers)  # it has not ended
    assert started[0] is started[1]
    workers.close()


def test_the_budget_shows_used_and_reserved_bytes() -> None:
    budget = ByteBudget(3 * BUFFER_SIZE)
    budget.take(100)
    assert budget.try_take(2 * BUFFER_SIZE, reserved=True)
    budget.give_back(BUFFER_SIZE, [budget.buffer(reserved=BUFFER_SIZE)])
    waiting = threading.Thread(target=budget.wait_take, args=(3 * BUFFER_SIZE, lambda: False))
    waiting.start()
    wait_until(lambda: budget.waiting == 1)
    assert repr(budget) == (
        "<ByteBudget [4194404 of 12582912 bytes taken, 4194304 of them reserved, 1 spare buffers, 1 waiting]>"
    )
    budget.give_back(100 + BUFFER_SIZE, reserved=BUFFER_SIZE)
    waiting.join(TIMEOUT)


def test_workers_and_lanes_show_running_and_queued_jobs() -> None:
    workers, release = Workers(2), threading.Event()
    assert repr(workers) == "<Workers [0 busy, 0 idle, max 2, 0 jobs queued]>"
    lane = Lane(workers, 1)
    jobs = [lane.submit(release.wait) for _ in range(3)]
    for _ in range(3):
        workers.submit(release.wait)
    wait_until(lambda: repr(lane) == "<Lane [1 jobs running, max 1, 2 queued]>")
    assert repr(workers) == "<Workers [2 busy, 0 idle, max 2, 2 jobs queued]>"
    release.set()
    for job in jobs:
        job.result(TIMEOUT)
    wait_until(lambda: repr(workers) == "<Workers [0 busy, 2 idle, max 2, 0 jobs queued]>")
    workers.close()
    assert repr(workers) == "<Workers [0 busy, 0 idle, max 2, 0 jobs queued, closed]>"


def test_a_runtime_says_all_of_it() -> None:
    with S3Client("us-east-1", endpoint="http://127.0.0.1:1") as client:
        runtime = client._runtime()
        assert runtime._new_multiplexer() is runtime._new_multiplexer()  # two threads may come at the same time
        said = repr(runtime)
    kinds = ["<Runtime [<ByteBudget [", "<WorkerShare [", "<Workers [", "<Multiplexer [", "<Caller [<ConnectionPool ["]
    assert [kind for kind in kinds if kind not in said] == []


class Broken:
    def __str__(self) -> str:
        raise ZeroDivisionError


def test_activities_are_listed_outermost_first_and_survive_errors() -> None:
    entered, release = threading.Event(), threading.Event()

    @activity("does {}", "what")
    def outer(what: str) -> None:
        inner(Broken())

    @activity("with {}", "thing")
    def inner(thing: Broken) -> None:
        innermost()

    @activity("waits")
    def innermost() -> None:
        entered.set()
        release.wait(TIMEOUT)

    thread = threading.Thread(target=outer, args=("something",), name="test of activities")
    thread.start()
    assert entered.wait(TIMEOUT)
    assert ("test of activities", "does something; with {} (ZeroDivisionError); waits") in activities()
    release.set()
    thread.join(TIMEOUT)
    assert "test of activities" not in dict(activities())


def test_an_activity_names_a_variable_that_exists() -> None:
    with pytest.raises(ValueError, match="has no variable other"):
        activity("does {}", "other")(lambda this: this)
