"""Objects of a sequence, fetched before the program asks for them, and handed out in order.

A window of objects is in flight: at most so many, and at most so many bytes, estimated from the sizes that a listing
told or that were seen so far. Half of the byte budget is left for the object that is being read. When the loop ends for
any reason, the requests in flight are cancelled. A forked child requests again what its parent has in flight, and
continues.

Three words for what is fetched early: *look-ahead* is about objects that come later in a sequence, *prefetch* about the
beginning of one object, *read-ahead* about the bytes after those that a reader reads in order.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from s3torchconnector._transfer.engine import _multiplexer  # noqa: F401 (or each forked worker would import it)
from s3torchconnector._transfer.engine._runtime import OpenRuntime
from s3torchconnector._transfer.reading._read_policy import FIRST_BYTES

_SECONDS_IN_FLIGHT = 0.1  # what the target throughput brings in the time that a slow first byte takes
_FEWEST = 2  # however little the target throughput asks for


class Prefetchable(Protocol):
    """What look-ahead asks of a reader; see ``ObjectReader``."""

    def _start_early(self, likely_size: int | None) -> bool:
        """Begin fetching, and take memory for it from the budget. Whether it is of a kind that can.

        ``likely_size`` is the mean of objects seen before; None: none was.
        """

    def _hand_out(self) -> int | None:
        """The program gets the reader, and its memory counts as the program's. Returns its size, if that is known."""

    def close(self) -> None:
        """Cancel running requests and free the memory."""


_R = TypeVar("_R", bound=Prefetchable)


class Window:
    """How many objects may be in flight: a pure function of the sizes seen and the room there is."""

    def __init__(
        self, open_runtimes: Sequence[OpenRuntime], most: int | None, allowed: Callable[[], bool] | None = None
    ) -> None:
        configs = [open_runtime().config for open_runtime in open_runtimes]
        self._open_runtimes = open_runtimes
        self._part_size = max(config.part_size for config in configs)
        self._most = most
        self._allowed = allowed
        self._bytes = max(config._bytes_per_second for config in configs) * _SECONDS_IN_FLIGHT
        self.mean_size: int | None = None

    def note(self, size: int) -> None:
        """An object had this size: recent ones count more."""
        self.mean_size = size if self.mean_size is None else (7 * self.mean_size + size) // 8

    def shut(self) -> None:
        """Make no more readers early: nothing would be gained, and they may hold whole objects."""
        self._most = 0

    def most(self) -> int:
        """How many objects may be in flight, if there is memory for them."""
        most = self._most
        if most is None:
            most = max([open_runtime().requests for open_runtime in self._open_runtimes])
        return min(most, max(_FEWEST, math.ceil(self._bytes / self._likely_size)))

    @property
    def _likely_size(self) -> int:
        return self.mean_size or min(FIRST_BYTES, self._part_size)

    def has_room(self, in_flight: int) -> bool:
        """Whether there is memory for one more, and it may be begun."""
        if self._allowed is not None and not self._allowed():
            return False
        if not in_flight:
            return True
        first = min(self._likely_size, self._part_size)
        for open_runtime in self._open_runtimes:
            budget = open_runtime().budget
            if not budget.has_room(first, budget.limit // 2):
                return False
        return True


class _Source(Generic[_R]):
    """The readers to come. An error in making one is raised after those before it were handed out."""

    def __init__(self, readers: Iterable[_R]) -> None:
        self._readers = iter(readers)
        self._error: Exception | None = None

    def next(self) -> _R | None:
        """The next reader; None at the end, or at an error."""
        if self._error is None:
            try:
                return next(self._readers, None)
            except Exception as error:
                self._error = error
        return None

    def raise_error(self) -> None:
        """All readers were handed out: raise the error of the next one, if that is why there is none."""
        error, self._error = self._error, None
        if error is not None:
            raise error


def look_ahead(
    readers: Iterable[_R],
    open_runtimes: Sequence[OpenRuntime],
    most: int | None = None,
    *,
    allowed: Callable[[], bool] | None = None,
    in_flight: deque[_R] | None = None,
) -> Generator[_R, None, None]:
    """Yield ``readers`` in order, each with its first bytes on their way or here.

    Args:
        readers: made one at a time, as the window moves on.
        open_runtimes: give the process's threads and budget, for each of the clients whose readers there are.
        most: at most so many in flight besides the one that was yielded; by default as many as
            ``throughput_target_gbps`` and the server's distance ask for. 0 fetches nothing early.
        allowed: nothing is begun while it says no. By default, it never does.
        in_flight: holds them in order, for a caller that wants to keep them at the end.
    """
    source = _Source(readers)
    window = Window(open_runtimes, most, allowed)
    in_flight = deque() if in_flight is None else in_flight
    pid = os.getpid()
    try:
        _fill(in_flight, source, window)
        while (reader := in_flight.popleft() if in_flight else source.next()) is not None:
            if pid != os.getpid():
                pid = os.getpid()
                for each in in_flight:
                    each._start_early(window.mean_size)
            size = reader._hand_out()
            if size is not None:
                window.note(size)
            _fill(in_flight, source, window)
            yield reader
        source.raise_error()
    finally:
        for reader in in_flight:
            reader.close()


def _fill(in_flight: deque[_R], source: _Source[_R], window: Window) -> None:
    most = window.most()
    while len(in_flight) < most and window.has_room(len(in_flight)):
        reader = source.next()
        if reader is None:
            return
        in_flight.append(reader)
        if not reader._start_early(window.mean_size):
            window.shut()
            return
