"""Turns at an endpoint that is overloaded.

As long as it is not, there are none: asking costs one look at an attribute. From the first SlowDown on, a request has
to have a turn before it is sent, and keeps it, through its refusals and pauses, until S3 answers it well: so requests
succeed in the order in which they came, instead of each new one trying its luck before those that wait. What comes
behind a good answer's head needs no turn: S3 has admitted the request, and its body may wait for the program.
"""

from __future__ import annotations

import threading
import time

from s3torchconnector._errors import S3Exception
from s3torchconnector._wire._concurrency import ConcurrencyLimit
from s3torchconnector._wire._line import Line
from s3torchconnector._wire._patience import Patience


class Overloaded(S3Exception):
    """A request would have to wait for its turn, and must not. Never reaches users."""


class Throttle:
    """Gives turns at one endpoint, to requests of one client.

    Attributes:
        active: whether turns are needed.
        answers: how many requests with a turn were answered well.
    """

    def __init__(self, most: int) -> None:
        self.active = False
        self.answers = 0
        self._lock = threading.Lock()
        self._limit = ConcurrencyLimit(most)
        self._line = Line()
        self._turns = 0  # given and not given back

    def take_turn(self, patience: Patience) -> bool:
        """Wait for a turn; False if none is needed any more.

        Raises:
            CancelledByCaller, S3TimeoutError: it did not come.
        """
        with self._lock:
            if not self.active:
                return False
            if not self._line and self._limit.allows(self._turns):
                self._turns += 1
                return True
            ticket = self._line.join()
        try:
            ticket.wait(patience)
        except BaseException:
            with self._lock:
                if self._line.leave(ticket):
                    self._pass_on()
            raise
        return True

    def give_back(self) -> None:
        """The turn is not needed any more."""
        with self._lock:
            self._pass_on()

    def answered(self) -> None:
        """S3 answered well to a request that had a turn: this gives it back, too."""
        with self._lock:
            self.answers += 1
            self._limit.answered()
            self._pass_on()

    def refused(self, in_flight: int, since: float) -> None:
        """S3 asked to slow down; ``in_flight`` requests were on their way when it did, this one since ``since``."""
        with self._lock:
            self._limit.refused(self._turns if self.active else in_flight, since, time.perf_counter())
            self.active = True

    def _pass_on(self) -> None:
        self._turns -= 1
        while self._limit.allows(self._turns) and self._line.admit():
            self._turns += 1
        self.active = self._limit.is_set or self._turns > 0
