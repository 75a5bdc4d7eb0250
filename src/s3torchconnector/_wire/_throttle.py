"""Turns at an endpoint that is overloaded.

As long as it is not, there are none: asking costs one look at an attribute. From the first SlowDown on, a request has
to have a turn before it is sent, and keeps it, through its refusals and pauses, until S3 answers it well: so requests
succeed in the order in which they came, instead of each new one trying its luck before those that wait. What comes
behind a good answer's head needs no turn: S3 has admitted the request, and its body may wait for the program.

How many turns there are follows ``ConcurrencyLimit``, and how soon who has one may send follows ``Pace``: the former
keeps one client from asking for too much at a time, the latter is what makes many clients share.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from s3torchconnector._errors import S3Exception
from s3torchconnector._wire._concurrency import ConcurrencyLimit
from s3torchconnector._wire._deadline import Deadline
from s3torchconnector._wire._fair_queue import FairQueue, Waiter
from s3torchconnector._wire._pace import Pace


class Overloaded(S3Exception):
    """A request would have to wait for its turn, and must not. Never reaches users."""


class Throttle:
    """Gives turns at one endpoint, to requests of one client.

    Args:
        most: how many requests the client may have in flight anyway.
        clock: seconds.
        uniform: randomness in [0, 1).

    Attributes:
        active: whether turns are needed.
    """

    def __init__(
        self,
        most: int,
        clock: Callable[[], float] = time.perf_counter,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self.active = False
        self._clock = clock
        self._lock = threading.Lock()
        self._limit = ConcurrencyLimit(most)
        self._pace = Pace(uniform)
        self._line = FairQueue()
        self._turns = 0  # given and not given back

    def take_turn(self, deadline: Deadline) -> bool:
        """Wait for a turn; False if none is needed any more.

        Raises:
            CancelledByCaller, S3TimeoutError: it did not come.
        """
        ticket = self.join()
        if ticket is None or ticket.admitted:
            return ticket is not None
        try:
            ticket.wait(deadline)
        except BaseException:
            with self._lock:
                if self._line.leave(ticket):
                    self._pass_on()
            raise
        return True

    def join(self) -> Waiter | None:
        """A place in the line, which may be a turn already; None if no turn is needed any more."""
        with self._lock:
            if not self.active:
                return None
            if self._line or not self._allows():
                return self._line.join()
            self._turns += 1
            ticket = Waiter()
        ticket.admit()
        return ticket

    def pause(self) -> float:
        """Seconds after which who has a turn may send a request; others have to wait longer."""
        with self._lock:
            now = self._clock()
            return self._pace.reserve(now) - now

    def give_back(self) -> None:
        """The turn is not needed any more."""
        with self._lock:
            self._pass_on()

    def answered(self) -> None:
        """S3 answered well to a request that had a turn: this gives it back, too."""
        with self._lock:
            self._limit.answered()
            self._pace.answered(self._clock())
            self._pass_on()

    def refused(self, in_flight: int, since: float) -> None:
        """S3 asked to slow down; ``in_flight`` requests were on their way when it did, this one since ``since``."""
        with self._lock:
            now = self._clock()
            self._limit.refused(self._turns if self.active else in_flight, since, now)
            self._pace.refused(in_flight, since, now)
            self.active = True

    def _allows(self) -> bool:
        return self._limit.allows(self._turns) and self._pace.allows(self._turns)

    def _pass_on(self) -> None:
        self._turns -= 1
        while self._allows() and self._line.admit():
            self._turns += 1
        self.active = self._limit.is_set or self._turns > 0 or self._pace.limits
        if not self.active:
            self._pace.lift()
