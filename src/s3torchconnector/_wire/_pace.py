"""How fast one client sends requests to an overloaded endpoint, so that each of many clients gets its share.

A limit on requests in flight is too coarse for that: a share may be far less than one request a round trip. Pauses that
grow with the refusals of one request, and start again with the next, favour the client that was lucky last. So the
interval between requests belongs to the client, and outlives each request. Pure: what happened, and when, are
parameters.

The rule is additive increase, multiplicative decrease (Chiu and Jain, 1989) of the rate: a good response adds the same
for every client, a refusal takes a fraction. So all clients converge to the same rate, at which each is refused once in
a few seconds, whatever the rate is. A refused request is sent again soon; after a good response, the next request waits
for the interval, so that clients that were served last let others go first. ``make simulate`` shows the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable

_DECREASE = 0.1
_PROBES = 0.25  # refusals a second at which increase and decrease are in balance
_SOON = 0.1  # of an interval, after which a refused request is sent again
_LONGEST = 20.0  # seconds of an interval
_SLOWEST_START = 1.0  # requests a second
_AGE = 0.5  # an interval is at most twice as long as the client has been without a good response
_AHEAD = 1.0  # seconds for which moments are reserved: a reserved moment does not follow the rate any more
_SPREAD = 0.3  # of an interval, by which it is randomly longer or shorter: clients must not send in step


class Pace:
    """The rate of one client at one endpoint; not thread-safe. Before the first refusal there is no limit.

    Args:
        uniform: randomness in [0, 1).

    Attributes:
        limits: whether the latest request had to wait for its moment.
    """

    def __init__(self, uniform: Callable[[], float]) -> None:
        self._uniform = uniform
        self.limits = False
        self._rate = math.inf
        self._next = -math.inf  # when the next request may be sent
        self._gap = 0.0  # seconds between the latest request and the next
        self._decreased_at = -math.inf
        self._succeeded_at = 0.0  # the latest good response

    def __repr__(self) -> str:
        return "<Pace [no limit]>" if self._rate == math.inf else f"<Pace [{self._rate:.3g} requests a second]>"

    def allows(self, waiting: int) -> bool:
        """Whether one more request may wait for its moment or for its response."""
        return not self.limits or waiting < max(1.0, self._rate * _AHEAD)

    def reserve(self, now: float) -> float:
        """Reserve the next moment at which a request may be sent."""
        if self._rate == math.inf:
            return now
        moment = max(now, self._next)
        self.limits = moment > now
        self._gap = (1.0 + _SPREAD * (2.0 * self._uniform() - 1.0)) / self._rate
        self._next = moment + self._gap
        return moment

    def refused(self, in_flight: int, since: float, now: float) -> None:
        """Note a SlowDown for a request sent at ``since``, when ``in_flight`` requests were under way."""
        if self._rate == math.inf:
            rate_so_far = in_flight / max(now - since, 1e-6)  # Little's law
            self._rate = max(_SLOWEST_START, (1.0 - _DECREASE) * rate_so_far)
            self._decreased_at, self._succeeded_at = now, since
            return
        if since >= self._decreased_at:  # otherwise it says nothing new
            # If all are refused, as when hundreds of clients start at once, no client may become much slower than its
            # fair share: together they would use less than the server can serve.
            least = max(1.0 / _LONGEST, _AGE / max(now - self._succeeded_at, 1e-6))
            self._rate = max(min(self._rate, least), (1.0 - _DECREASE) * self._rate)
            self._decreased_at = now
        self.expect_again()

    def expect_again(self) -> None:
        """A refused request will be sent again, soon: the next moment is its own."""
        self._next -= (1.0 - _SOON) * self._gap

    def succeeded(self, now: float) -> None:
        """Note a good response."""
        if self._rate == math.inf:
            return
        if self.limits:  # otherwise a higher rate would change nothing, until it is too high
            quiet = _PROBES * (now - self._decreased_at)  # above 1: the server may have more capacity than was assumed
            self._rate += _DECREASE * _PROBES * (1.0 + quiet * quiet / 4.0)
        self._succeeded_at = now

    def lift(self) -> None:
        """Remove the limit: the endpoint is no longer overloaded."""
        self._rate, self._next, self.limits = math.inf, -math.inf, False
