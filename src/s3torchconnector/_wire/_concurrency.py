"""How many requests an overloaded endpoint may be asked at a time: additive increase, multiplicative decrease.

A pure value that changes: what happened and when are parameters. The rule is TCP's (RFC 5681), and AWS advises it for
SlowDown: a refusal takes 30% of what was in flight, and refusals of requests that began before the last decrease
say nothing new. A good answer adds its share of one more request a round trip. Once as many are allowed as the client
has connections, the limit is gone.
"""

from __future__ import annotations

import math

_DECREASE = 0.7
_FEWEST = 1.0


class ConcurrencyLimit:
    """The limit for one endpoint; not thread-safe.

    Args:
        most: what the client may have in flight anyway.
    """

    def __init__(self, most: int) -> None:
        self._most = float(most)
        self._limit = math.inf
        self._decreased = -math.inf  # when

    @property
    def is_set(self) -> bool:
        return self._limit < math.inf

    def allows(self, in_flight: int) -> bool:
        """Whether one more may be asked."""
        return in_flight + 1 <= self._limit

    def refused(self, in_flight: int, since: float, now: float) -> None:
        """S3 asked to slow down, refusing a request that began at ``since``; so many were in flight."""
        if since >= self._decreased:
            self._limit = max(_FEWEST, _DECREASE * min(self._limit, self._most, float(in_flight)))
            self._decreased = now

    def answered(self) -> None:
        """A good answer came."""
        self._limit += 1.0 / self._limit
        if self._limit >= self._most:
            self._limit = math.inf
