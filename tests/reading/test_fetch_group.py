"""``FetchGroup``: fetches into the memory of a caller that owns it again as soon as the block ends."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from s3torchconnector._transfer.engine._outcome import Outcome
from s3torchconnector._transfer.engine._workers import Lane, Workers
from s3torchconnector._transfer.reading._fetch_group import FetchGroup
from s3torchconnector._wire import CancelledByCaller, CancelToken
from tests.interrupts import Interrupts, interrupted_at
from tests.reading.support import wait_until


class Fetch:
    """Stands for a ``RangeFetch``: runs what it is given on a worker."""

    def __init__(self, action: Callable[[CancelToken], Any]) -> None:
        self._action = action

    def fetch(self, caller: Any, cancel: CancelToken) -> Any:
        return self._action(cancel)


@pytest.fixture
def lane() -> Iterator[Lane]:
    workers = Workers(4)
    yield Lane(workers, 2)
    workers.close()


def group_on(lane: Lane) -> Any:
    return FetchGroup(lane, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["in the block", "on a worker"])
def test_an_error_waits_for_threads_that_may_still_write(lane: Lane, where: str) -> None:
    entered, left = threading.Event(), threading.Event()
    observed: list[bool] = []

    def write_until_cancelled(cancel: CancelToken) -> None:
        entered.set()
        try:
            cancel.wait(60)
        finally:
            observed.append(left.wait(0.2))  # the last bytes are written now

    def fail(cancel: CancelToken) -> None:
        assert entered.wait(30)
        raise ZeroDivisionError

    group = group_on(lane)

    def use() -> None:
        with group:
            group.submit(Fetch(write_until_cancelled))
            if where == "in the block":
                group.fetch_here(Fetch(fail))
            else:
                group.submit(Fetch(fail))

    with pytest.raises(ZeroDivisionError):
        use()
    left.set()
    assert observed == [False]


def test_after_an_error_nothing_begins_that_had_not_begun(lane: Lane) -> None:
    begun: list[int] = []
    entered = [threading.Event(), threading.Event()]

    def stay(event: threading.Event, cancel: CancelToken) -> None:
        event.set()
        cancel.wait(60)

    def use() -> None:
        with group_on(lane) as group:
            for event in entered:  # as many as run at a time
                group.submit(Fetch(lambda cancel, event=event: stay(event, cancel)))
            group.submit(Fetch(lambda cancel: begun.append(1)))
            assert all(event.wait(30) for event in entered)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use()
    assert begun == []


def test_without_an_error_all_have_ended(lane: Lane) -> None:
    done: list[int] = []
    with group_on(lane) as group:
        for number in range(20):
            group.submit(Fetch(lambda cancel, number=number: done.append(number)))
    assert sorted(done) == list(range(20))


MOMENTS = (
    FetchGroup.__exit__,
    FetchGroup._stop_writers,
    CancelToken.cancel,
    Outcome.claim,
    Outcome.wait_until_set,
)


def test_no_second_interrupt_leaves_a_thread_that_writes(lane: Lane) -> None:
    """At any moment of what follows the first."""
    for moment in itertools.count(2):  # not where ``__exit__`` begins
        entered, writing = threading.Event(), threading.Event()

        def write(cancel: CancelToken, entered: threading.Event = entered, writing: threading.Event = writing) -> None:
            writing.set()
            entered.set()
            try:
                cancel.wait(60)
            finally:
                writing.clear()

        def use(moment: int, write: Any, entered: threading.Event) -> None:
            with contextlib.ExitStack() as striking, group_on(lane) as group:
                group.submit(Fetch(write))
                assert entered.wait(30)
                striking.enter_context(interrupted_at(moment, *MOMENTS))
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt) as raised:
            use(moment, write, entered)
        assert not writing.is_set(), moment
        if raised.value.__context__ is None:  # the second one did not come any more
            break
    assert moment > 5


def test_interrupts_while_a_worker_does_not_end_are_waited_out(lane: Lane) -> None:
    entered, leaving, may_end = threading.Event(), threading.Event(), threading.Event()
    ended = []

    def write(cancel: CancelToken) -> None:
        entered.set()
        with contextlib.suppress(CancelledByCaller):
            cancel.wait(60)
        assert may_end.wait(30)  # received by one more system call
        ended.append(True)

    def strike_twice() -> None:
        assert leaving.wait(30)
        for _ in range(2):
            wait_until(lambda: interrupts.strike_in("wait_until_set") or interrupts.strike_in("wait"))
        may_end.set()

    with Interrupts() as interrupts:
        striking = threading.Thread(target=strike_twice)
        striking.start()  # now: it would be struck in the wait for its own start

        def use() -> None:
            with group_on(lane) as group:
                group.submit(Fetch(write))
                assert entered.wait(30)
                leaving.set()
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            use()
        assert ended
        striking.join()
