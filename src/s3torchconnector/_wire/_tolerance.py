"""Which refusals are no sign of overload.

S3 also refuses requests of clients that send few: while it splits a partition, or because of other clients. If so many
are refused whatever the rate is, a slower client is refused as often, and sends ever less: at 1 %, a client that takes
each refusal for overload ends at some 25 requests a second. So a share of refusals is tolerated: these requests are
sent again, and nothing else changes. BBR does the same with lost packets, up to 2 %:
https://datatracker.ietf.org/doc/html/draft-ietf-ccwg-bbr (``BBR.LossThresh``).

Refusals that go beyond the share slow the client down (``_throttle``). At a server that can take no more, nearly the
whole share is refused, which costs it little: a refusal has no body.
"""

from __future__ import annotations

import threading


class Tolerance:
    """A token bucket: each good response adds ``SHARE`` of a refusal, up to ``MOST``. Thread-safe.

    It begins empty. Hundreds of clients that start at once at a server that is overloaded already slow down at once.
    """

    SHARE = 0.05
    MOST = 5.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._refusals = 0.0

    def __repr__(self) -> str:
        return f"<Tolerance [{self._refusals:.2f} of {self.MOST:g} refusals left]>"

    def earn(self) -> None:
        """Note a good response. The check without the lock keeps the common case free of it."""
        if self._refusals < self.MOST:
            with self._lock:
                self._refusals = min(self.MOST, self._refusals + self.SHARE)

    def spend(self) -> bool:
        """Note a refusal. Whether it is tolerated."""
        with self._lock:
            if self._refusals < 1.0:
                return False
            self._refusals -= 1.0
            return True
