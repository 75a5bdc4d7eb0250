"""When a request whose response is late is sent again on another connection (a hedged request).

Dean and Barroso, The Tail at Scale (CACM 56(2), 2013): if one response in a hundred takes seconds, nearly every batch
of a hundred is delayed. A second request brings the response in the usual time, and costs next to nothing if it is sent
only when the usual time is long over. Here that is three times the 95th percentile of recent first bytes, and at least
100 ms. A budget of one extra request for twenty bounds the added load if all responses are late.
"""

from __future__ import annotations

import math
import threading

_FACTOR = 3.0
_SOONEST = 0.1  # seconds
_EXTRA = 0.05  # extra requests for each response
_SAVED = 10.0  # extra requests that may be saved up
_KNOWN_AFTER = 50  # responses


class Quantile:
    """A running estimate of one quantile of recent positive numbers, in constant time and memory.

    Each number above the estimate raises it by a factor, and each number below lowers it by a smaller one. In balance,
    the share above is ``1 - rank`` (stochastic approximation on a logarithmic scale). The estimate follows a rise
    within some tens of numbers, and a fall within some hundreds.
    """

    def __init__(self, rank: float, step: float = 0.1) -> None:
        self._up = 1.0 + step * rank
        self._down = 1.0 - step * (1.0 - rank)
        self.value = 0.0

    def add(self, number: float) -> None:
        if not self.value:
            self.value = number
        else:
            self.value *= self._up if number > self.value else self._down


class Hedging:
    """What one client knows of the times to first byte, and its budget of extra requests. Thread-safe.

    Attributes:
        delay: seconds without a first byte after which a request may be sent again; infinite until enough is known.
    """

    def __init__(self, enabled: bool) -> None:
        self.delay = math.inf
        self._enabled = enabled
        self._lock = threading.Lock()
        self._usual = Quantile(0.95)
        self._typical = Quantile(0.5)
        self._responses = 0
        self._tokens = 0.0

    @property
    def typical(self) -> float | None:
        """The median time from a request to its first byte, in seconds; None until there is one."""
        return self._typical.value or None

    def note(self, seconds: float) -> None:
        """Note the time from a request to its first byte."""
        with self._lock:
            self._usual.add(seconds)
            self._typical.add(seconds)
            self._responses += 1
            self._tokens = min(_SAVED, self._tokens + _EXTRA)
            if self._enabled and self._responses >= _KNOWN_AFTER:
                self.delay = max(_SOONEST, _FACTOR * self._usual.value)

    def spend(self) -> bool:
        """Take the tokens of one extra request from the budget; False if there are too few."""
        with self._lock:
            if self._tokens < 1.0:
                return False
            self._tokens -= 1.0
            return True
