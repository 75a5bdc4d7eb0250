"""Permits for requests to an endpoint that is overloaded.

While the endpoint is not overloaded, no permit is needed, and finding that out costs one attribute look-up. From the
first SlowDown on that is not tolerated (``_tolerance``), a request needs a permit before it is sent. It keeps the
permit through refusals and pauses, until S3 sends a good response. So requests succeed in their order of arrival;
without permits, new requests could overtake those that already wait. Once the head of a good response has arrived, the
permit is released: S3 has admitted the request, and its body may have to wait for the program.

``ConcurrencyLimit`` says how many permits there are, and ``Pace`` how soon the holder of one may send. The first keeps
one client from sending too many requests at once; the second makes many clients share the endpoint.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from s3torchconnector._activity import activity
from s3torchconnector._errors import S3Exception, S3TimeoutError
from s3torchconnector._jitter import jitter
from s3torchconnector._wire._concurrency import ConcurrencyLimit
from s3torchconnector._wire._deadline import Deadline
from s3torchconnector._wire._fair_queue import FairQueue, Waiter
from s3torchconnector._wire._pace import Pace
from s3torchconnector._wire._tolerance import Tolerance

TOO_LATE = "S3 asks this client to slow down, and the request could not be sent in time"


class Overloaded(S3Exception):
    """A request would have to wait for a permit, and must not wait. Never reaches users."""


class Throttle:
    """Gives permits for one endpoint to the requests of one client. Thread-safe.

    Args:
        most: how many requests the client may have in flight without any throttling.
        clock: the time, in seconds.
        uniform: randomness in [0, 1).
        tolerance: which refusals change nothing; by default, none.

    Attributes:
        active: whether requests need a permit.
    """

    def __init__(
        self,
        most: int,
        clock: Callable[[], float] = time.perf_counter,
        uniform: Callable[[], float] = jitter,
        tolerance: Tolerance | None = None,
    ) -> None:
        self.active = False
        self._tolerance = tolerance
        self._clock = clock
        self._lock = threading.Lock()
        self._limit = ConcurrencyLimit(most)
        self._pace = Pace(uniform)
        self._queue = FairQueue()
        self._permits = 0  # given and not yet released

    def __repr__(self) -> str:
        # Without the lock: the figures may be of slightly different moments.
        if not self.active:
            return "<Throttle [off]>"
        return f"<Throttle [permits: {self._permits} held, {len(self._queue)} waiting | {self._pace!r}]>"

    @activity("waits for a permit, since the endpoint has asked to slow down")
    def acquire(self, deadline: Deadline) -> bool:
        """Wait for a permit; False if none is needed any more.

        Raises:
            CancelledByCaller: the token was cancelled.
            S3TimeoutError: there was no permit before the deadline.
        """
        waiter = self.request_permit()
        if waiter is None or waiter.admitted:
            return waiter is not None
        try:
            waiter.wait(deadline)
        except BaseException as error:
            with self._lock:
                if self._queue.leave(waiter):
                    self._pass_permit_on()
            if isinstance(error, S3TimeoutError):
                raise S3TimeoutError(TOO_LATE) from error
            raise
        return True

    def request_permit(self) -> Waiter | None:
        """Join the queue for a permit, which may be there at once; None if no permit is needed any more."""
        with self._lock:
            if not self.active:
                return None
            if self._queue or not self._allows():
                return self._queue.join()
            self._permits += 1
            waiter = Waiter()
        waiter.admit()
        return waiter

    def pause(self) -> float:
        """Seconds after which the holder of a permit may send its request; calls reserve one moment after another."""
        with self._lock:
            now = self._clock()
            return self._pace.reserve(now) - now

    def release(self) -> None:
        """Give a permit back that is no longer needed."""
        with self._lock:
            self._pass_permit_on()

    def succeeded(self) -> None:
        """Note a good response to a request that held a permit, and release the permit."""
        with self._lock:
            self._limit.succeeded()
            self._pace.succeeded(self._clock())
            self._pass_permit_on()

    def refused(self, in_flight: int, since: float, connections: int = 0) -> None:
        """Note a SlowDown for a request sent at ``since``, when ``in_flight`` requests were under way, and so many
        connections open.
        """
        with self._lock:
            now = self._clock()
            if self._tolerance is not None and self._tolerance.spend(max(in_flight, connections)):
                self._pace.expect_again()
                return
            self._limit.refused(self._permits if self.active else in_flight, since, now)
            self._pace.refused(in_flight, since, now)
            self.active = True

    def _allows(self) -> bool:
        return self._limit.allows(self._permits) and self._pace.allows(self._permits)

    def _pass_permit_on(self) -> None:
        self._permits -= 1
        while self._allows() and self._queue.admit():
            self._permits += 1
        self.active = self._limit.is_set or self._permits > 0 or self._pace.limits
        if not self.active:
            self._pace.lift()
