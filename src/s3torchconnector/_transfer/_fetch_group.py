"""Many ranges at once into memory that the caller owns."""

from __future__ import annotations

from concurrent.futures import FIRST_EXCEPTION, Future, wait
from functools import partial
from types import TracebackType
from typing import Generic, Protocol, TypeVar

from s3torchconnector._transfer._ranges import Range
from s3torchconnector._transfer._workers import Lane
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
    ``KeyboardInterrupt``), nothing touches the destination memory afterwards.

    Attributes:
        fetches: all of them; when the block was left without an error, all that was fetched.
    """

    def __init__(self, lane: Lane, caller: Caller) -> None:
        self._lane = lane
        self._caller = caller
        self._cancel = CancelToken()
        self._futures: list[Future[Range]] = []
        self.fetches: list[_F] = []

    def start(self, fetch: _F) -> None:
        """Have a worker fetch."""
        self.fetches.append(fetch)
        self._futures.append(self._lane.submit(partial(fetch.run, self._caller, self._cancel)))

    def run(self, fetch: _F) -> Range:
        """Fetch on the calling thread, which would only wait otherwise."""
        self.fetches.append(fetch)
        return fetch.run(self._caller, self._cancel)

    def __enter__(self) -> FetchGroup[_F]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                done, _ = wait(self._futures, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
        except BaseException:
            self._give_up()
            raise
        if error is not None:
            self._give_up()

    def _give_up(self) -> None:
        self._cancel.cancel()
        for future in self._futures:
            future.cancel()
        wait(self._futures)
