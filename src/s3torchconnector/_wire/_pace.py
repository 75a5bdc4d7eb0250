"""How fast one client asks an overloaded endpoint, so that of many clients each gets its share.

A limit of what is in flight is too coarse for that: a share may be far less than one request a round trip. And pauses
that grow with the refusals of one request, and begin anew with the next, give most to whoever was just lucky. So the
interval between requests belongs to the client: it survives them. A pure value that changes: what happened and when
are parameters.

The rule is additive increase, multiplicative decrease (Chiu and Jain, 1989), of the rate: each good response adds as
much for all clients, each refusal takes a fraction. So all come to the same rate, at which each is refused once in some
seconds, whatever the rate is. A request that was refused comes again soon, and one after a good response only after the
interval: those who were served last let the others go first. ``make simulate`` shows what comes of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

_DECREASE = 0.1
_PROBES = 0.25  # refusals a second, at which increase and decrease are even
_SOON = 0.1  # of an interval, after which a refused request comes again
_LONGEST = 20.0  # seconds
_SLOWEST_START = 1.0  # requests a second
_AGE = 0.5  # of an interval, that a client must have gone without a good response before it gets as long
_AHEAD = 1.0  # seconds for which moments are taken: what is taken does not follow the rate any more
_SPREAD = 0.3  # of an interval, by which it is longer or shorter by chance: clients must not come in step


class Pace:
    """The rate of one client at one endpoint; not thread-safe. Until the first refusal there is none.

    Args:
        uniform: randomness in [0, 1).

    Attributes:
        limits: whether the latest request had to wait for it.
    """

    def __init__(self, uniform: Callable[[], float]) -> None:
        self._uniform = uniform
        self.limits = False
        self._rate = math.inf
        self._next = -math.inf  # when a request may be sent
        self._gap = 0.0  # seconds between the latest request and the next
        self._decreased = -math.inf  # when
        self._answered = 0.0  # when, last

    def allows(self, waiting: int) -> bool:
        """Whether one more may wait for its moment, or for the response to what it has sent."""
        return not self.limits or waiting < max(1.0, self._rate * _AHEAD)

    def reserve(self, now: float) -> float:
        """When the next request may be sent; that moment is taken."""
        if self._rate == math.inf:
            return now
        moment = max(now, self._next)
        self.limits = moment > now
        self._gap = (1.0 + _SPREAD * (2.0 * self._uniform() - 1.0)) / self._rate
        self._next = moment + self._gap
        return moment

    def refused(self, in_flight: int, since: float, now: float) -> None:
        """S3 asked to slow down, refusing a request that was sent at ``since``; so many were in flight."""
        if self._rate == math.inf:
            rate_so_far = in_flight / max(now - since, 1e-6)  # Little's law
            self._rate = max(_SLOWEST_START, (1.0 - _DECREASE) * rate_so_far)
            self._decreased, self._answered = now, since
            return
        if since >= self._decreased:  # otherwise it says nothing new
            # While all are refused, as when hundreds of clients begin at once, none becomes much slower than its turn
            # can take to come: together they would ask for less than there is.
            least = max(1.0 / _LONGEST, _AGE / max(now - self._answered, 1e-6))
            self._rate = max(min(self._rate, least), (1.0 - _DECREASE) * self._rate)
            self._decreased = now
        self._next -= (1.0 - _SOON) * self._gap

    def answered(self, now: float) -> None:
        """S3 answered well."""
        if self._rate == math.inf:
            return
        if self.limits:  # otherwise a higher rate would change nothing, until it is too high
            quiet = _PROBES * (now - self._decreased)  # more than one: there may be more than was thought
            self._rate += _DECREASE * _PROBES * (1.0 + quiet * quiet / 4.0)
        self._answered = now

    def lift(self) -> None:
        """The endpoint is not overloaded any more."""
        self._rate, self._next, self.limits = math.inf, -math.inf, False
