"""Garbage collection may run at any allocation, on any thread. Finalisers must not wait, and their work is not lost."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer.engine._budget import BUFFER_SIZE, ByteBudget
from s3torchconnector._wire import CancelledByCaller, CancelToken
from s3torchconnector._wire._deadline import Deadline
from s3torchconnector._wire._fair_queue import FairQueue, Waiter
from s3torchconnector.testing import S3Server
from tests.interrupts import struck
from tests.resources import Opened, settings_of_its_own

TIMEOUT = 30.0


class Garbage:
    """In a cycle, so that only a collection ends it; then ``end`` is called."""

    def __init__(self, end: Callable[[], object]) -> None:
        self._end = end
        self._itself = self

    def __del__(self) -> None:
        self._end()


def collect(end: Callable[[], object]) -> None:
    """A garbage collection that finds what ends so."""
    Garbage(end)
    gc.collect(0)  # of what is new: all of it takes a tenth of a second


def in_time(job: Callable[[], object]) -> None:
    """Have another thread do ``job``, and find out whether that waits for itself."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            job()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(TIMEOUT / 6)
    assert not thread.is_alive(), "it waits for itself"
    if errors:
        raise errors[0]


def test_dropping_a_client_waits_for_none_of_its_threads() -> None:
    client = S3Client("us-east-1", endpoint="http://127.0.0.1:1", s3client_config=settings_of_its_own())
    client._runtime()  # the first one of a process starts a thread that stays
    opened = Opened()
    release, over = threading.Event(), threading.Event()
    in_time = []

    def job() -> None:
        in_time.append(release.wait(TIMEOUT))
        over.set()

    client._runtime().workers.submit(job)
    del client
    gc.collect()
    release.set()  # what the thread waits for is held by the one on which the client ended
    assert over.wait(TIMEOUT)
    assert in_time == [True]
    assert opened.are_gone()


def test_a_listing_keeps_its_client(s3_server: S3Server, bucket: str) -> None:
    for number in range(2500):
        (s3_server.folder / bucket / f"{number:04}").write_bytes(b"")
    found = 0
    for page in S3Client("us-east-1", endpoint=s3_server.endpoint).list_all(bucket):
        gc.collect()
        found += len(page)
    assert found == 2500


def test_bytes_given_back_as_a_wait_begins_end_the_wait() -> None:
    budget = ByteBudget(100)
    budget.take(100)
    given = []

    def need_not_wait() -> bool:  # asked just before the wait, when a finaliser may give bytes back, too
        if not given:
            given.append(True)
            budget.give_back(60)
        return False

    budget.wait_take(50, need_not_wait)
    assert budget.taken == 90


class Aborted:
    """Stands for a connection."""

    def __init__(self) -> None:
        self.count = 0

    def abort(self) -> None:
        self.count += 1


def test_a_collection_cancels_a_token_that_its_thread_holds() -> None:
    """A worker begins a request, and the collector ends the reader that it is for."""
    token, connection = CancelToken(), Aborted()

    def request() -> None:
        with struck(lambda: collect(token.cancel), CancelToken.enter, CancelToken.leave, CancelToken.check):
            token.enter(connection)

    with pytest.raises(CancelledByCaller):
        in_time(request)
    token.leave(connection)


@pytest.mark.parametrize("moment", range(1, 8))
def test_cancelling_at_each_moment_aborts_the_connection(moment: int) -> None:
    token, connection = CancelToken(), Aborted()
    moments = iter(range(1, 100))

    def strike() -> None:
        if next(moments) == moment:
            collect(token.cancel)

    def request() -> None:
        with struck(strike, CancelToken.enter):
            token.enter(connection)

    try:
        in_time(request)
    except CancelledByCaller:
        return
    assert connection.count == token.cancelled


def test_a_pause_ends_when_a_collection_cancels_it() -> None:
    token = CancelToken()

    def pause() -> None:
        with struck(lambda: collect(token.cancel), CancelToken.wait):
            token.wait(TIMEOUT)

    with pytest.raises(CancelledByCaller):
        in_time(pause)


def test_a_wait_for_a_permit_ends_if_a_collection_cancels_it() -> None:
    token, ticket = CancelToken(), FairQueue().join()
    event = threading.Event

    def wait() -> None:
        # Also inside the locks of the standard library's events.
        with struck(lambda: collect(token.cancel), Waiter.wait, event.wait, event.set, threading.Condition.wait):
            ticket.wait(Deadline(token, float("inf")))

    with pytest.raises(CancelledByCaller):
        in_time(wait)


BUDGET: list[Callable[..., Any]] = [
    ByteBudget.try_take,
    ByteBudget.take,
    ByteBudget.give_back,
    ByteBudget.wait_take,
    ByteBudget.wake,
    ByteBudget.buffer,
    ByteBudget.has_room,
    ByteBudget.use_reserved,
    ByteBudget._trim,
    ByteBudget._make_room,
]


def test_a_collection_gives_bytes_back_while_some_are_taken() -> None:
    budget = ByteBudget(1000)
    strikes = []

    def give() -> None:
        budget.give_back(1)
        budget.wake()

    def strike() -> None:
        strikes.append(budget.take(1))
        collect(give)

    def use() -> None:
        with struck(strike, *BUDGET):
            budget.wait_take(700, lambda: False)
            assert budget.try_take(100)
            budget.give_back(budget.take(100))
            budget.give_back(budget.take(BUFFER_SIZE), [budget.buffer()])
            assert not budget.has_room(2000, 1000)
            budget.wake()
            budget.give_back(800)

    in_time(use)
    assert len(strikes) > 20
    assert budget.taken == 0


def test_asking_whether_to_wait_blocks_no_collection() -> None:
    """It asks futures, whose locks other threads hold; a collection there may give bytes back."""
    budget, future_lock = ByteBudget(100), threading.Lock()
    asking = threading.Event()
    budget.take(100)

    def need_not_wait() -> bool:
        asking.set()
        with future_lock:
            return True

    with future_lock:
        waiting = threading.Thread(target=budget.wait_take, args=(50, need_not_wait), daemon=True)
        waiting.start()
        assert asking.wait(TIMEOUT)
        in_time(lambda: collect(lambda: budget.give_back(10)))
    waiting.join(TIMEOUT)
    assert budget.taken == 90
