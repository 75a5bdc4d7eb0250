"""How many requests may be in flight to an overloaded endpoint: additive increase, multiplicative decrease.

Pure: what happened, and when, are parameters. The rule is TCP's (RFC 5681), and AWS recommends it for SlowDown. A
refusal takes 30% off the number in flight; refusals of requests that were sent before the last decrease say nothing
new. Each good response adds its share of one more request a round trip. The limit ends when it reaches the number of
connections that the client may have.
"""

from __future__ import annotations

import math

_DECREASE = 0.7
_FEWEST = 1.0


class ConcurrencyLimit:
    """The limit for one endpoint; not thread-safe.

    Args:
        most: how many requests the client may have in flight without any limit.
    """

    def __init__(self, most: int) -> None:
        self._most = float(most)
        self._limit = math.inf
        self._decreased_at = -math.inf

    @property
    def is_set(self) -> bool:
        return self._limit < math.inf

    def allows(self, in_flight: int) -> bool:
        """Whether one more request may be sent."""
        return in_flight + 1 <= self._limit

    def refused(self, in_flight: int, since: float, now: float) -> None:
        """Note a SlowDown for a request sent at ``since``, when ``in_flight`` requests were under way."""
        if since >= self._decreased_at:
            self._limit = max(_FEWEST, _DECREASE * min(self._limit, self._most, float(in_flight)))
            self._decreased_at = now

    def succeeded(self) -> None:
        """Note a good response."""
        self._limit += 1.0 / self._limit
        if self._limit >= self._most:
            self._limit = math.inf
