"""Many ranges at once into memory that the caller owns."""

from __future__ import annotations

from functools import partial
from queue import SimpleQueue
from typing import Generic, Protocol, TypeVar

from s3torchconnector._transfer.engine._outcome import Outcome
from s3torchconnector._transfer.engine._ranges import Range
from s3torchconnector._transfer.engine._workers import Lane
from s3torchconnector._transfer.reading._memory_guard import MemoryGuard
from s3torchconnector._wire import Caller, CancelToken


class Fetch(Protocol):
    """A ``RangeFetch``, or something that does more with one."""

    def fetch(self, caller: Caller, cancel: CancelToken | None = None, /) -> Range:
        """Fetch; ends early when cancelled."""
        ...


_F = TypeVar("_F", bound=Fetch)


class FetchGroup(MemoryGuard, Generic[_F]):
    """Fetches that succeed or fail together: ``with FetchGroup(...) as group``.

    Leaving the block waits for all of them and raises the first error. After an error or an interrupt, those under way
    are cancelled and waited for, and the others never start.

    Attributes:
        fetches: all of them; if the block was left without an error, all that was fetched.
    """

    def __init__(self, lane: Lane, caller: Caller) -> None:
        self._lane = lane
        self._caller = caller
        self._cancel = CancelToken()
        self._submitted: list[Outcome] = []
        self._started: list[Outcome] = []  # by a worker, if it could claim them: what an interrupt has to wait for
        self._ended: SimpleQueue[Outcome] = SimpleQueue()
        self.fetches: list[_F] = []

    def submit(self, fetch: _F) -> None:
        """Have a worker fetch."""
        self.fetches.append(fetch)
        outcome = Outcome()
        self._submitted.append(outcome)  # before anybody can start: an interrupt must find it
        self._lane.submit(partial(self._fetch, fetch, outcome))

    def fetch_here(self, fetch: _F) -> Range:
        """Fetch on the calling thread, which otherwise would only wait."""
        self.fetches.append(fetch)
        return fetch.fetch(self._caller, self._cancel)

    def _fetch(self, fetch: _F, outcome: Outcome) -> None:
        self._started.append(outcome)
        if not outcome.claim():  # cancelled: nobody waits for its end
            outcome.set()
            return
        try:
            fetch.fetch(self._caller, self._cancel)
        except BaseException as error:
            outcome.set(error)
        else:
            outcome.set()
        self._ended.put(outcome)

    def __enter__(self) -> FetchGroup[_F]:
        return self

    def _await_writers(self) -> None:
        for _ in self._submitted:
            self._ended.get().wait()

    def _stop_writers(self) -> None:
        self._cancel.cancel()
        for outcome in self._submitted:
            outcome.claim()  # no worker starts it any more
        for outcome in self._started:
            outcome.wait_until_set()
