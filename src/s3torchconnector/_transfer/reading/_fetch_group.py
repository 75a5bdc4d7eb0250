"""Many ranges at once into memory that the caller owns."""

from __future__ import annotations

from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Generic, Protocol, TypeVar

from s3torchconnector._transfer.engine._outcome import Outcome
from s3torchconnector._transfer.engine._ranges import Range
from s3torchconnector._transfer.engine._workers import Lane
from s3torchconnector._wire import Caller, CancelToken


class Fetch(Protocol):
    """A ``RangeFetch``, or something that does more with one."""

    def run(self, caller: Caller, cancel: CancelToken | None = None, /) -> Range:
        """Fetch; ends early when cancelled."""
        ...


_F = TypeVar("_F", bound=Fetch)


class FetchGroup(Generic[_F]):
    """Fetches that succeed or fail together: ``with FetchGroup(...) as group``.

    Leaving the block waits for all of them and raises the first error. Whatever way it is left (an error, a
    ``KeyboardInterrupt``, another one while it waits), nothing touches the destination memory afterwards.

    Attributes:
        fetches: all of them; when the block was left without an error, all that was fetched.
    """

    def __init__(self, lane: Lane, caller: Caller) -> None:
        self._lane = lane
        self._caller = caller
        self._cancel = CancelToken()
        self._started: list[Outcome] = []
        self._begun: list[Outcome] = []  # by a worker, if it could claim them: what an interrupt has to wait for
        self._ended: SimpleQueue[Outcome] = SimpleQueue()
        self.fetches: list[_F] = []

    def start(self, fetch: _F) -> None:
        """Have a worker fetch."""
        self.fetches.append(fetch)
        outcome = Outcome()
        self._started.append(outcome)  # before anybody can begin: an interrupt must find it
        self._lane.submit(partial(self._fetch, fetch, outcome))

    def run(self, fetch: _F) -> Range:
        """Fetch on the calling thread, which would only wait otherwise."""
        self.fetches.append(fetch)
        return fetch.run(self._caller, self._cancel)

    def _fetch(self, fetch: _F, outcome: Outcome) -> None:
        self._begun.append(outcome)
        if not outcome.claim():  # given up: nobody waits for its end
            outcome.settle()
            return
        try:
            fetch.run(self._caller, self._cancel)
        except BaseException as error:
            outcome.settle(error)
        else:
            outcome.settle()
        self._ended.put(outcome)

    def __enter__(self) -> FetchGroup[_F]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        failure: BaseException | None = None
        over = False
        while not over:
            try:
                if error is None and failure is None:
                    self._await_all()
                else:
                    self._give_up()
                over = True
            except BaseException as latest:  # of a fetch; or an interrupt, after which others may still be writing
                failure = latest
        try:
            if failure is not None:
                raise failure
        finally:
            failure = None  # it refers to this frame

    def _await_all(self) -> None:
        for _ in self._started:
            self._ended.get().wait()

    def _give_up(self) -> None:
        """Cancel, and wait until nobody fetches. Can be interrupted and called again."""
        self._cancel.cancel()
        for outcome in self._started:
            outcome.claim()  # nobody begins it any more
        for outcome in self._begun:
            outcome.join()
