"""Which refusals are no sign of overload.

S3 also refuses requests while it adapts to a new rate, and because of other clients
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance.html). If so many are refused whatever the
rate is, a slower client is refused as often, and sends ever less: at 1 %, a client that takes each refusal for overload
ends at some 25 requests a second. So a share of refusals is tolerated: these requests are sent again, and nothing else
changes. BBR does the same with lost packets, up to 2 %:
https://datatracker.ietf.org/doc/html/draft-ietf-ccwg-bbr (``BBR.LossThresh``).

Refusals that go beyond the share slow the client down (``_throttle``). At a server that can take no more, nearly the
whole share is refused, which costs it little: a refusal has no body.
"""

from __future__ import annotations

import threading


class Tolerance:
    """A token bucket: each good response adds one token, and a refusal that is tolerated takes ``COST``. Thread-safe.

    So a twentieth of all requests may be refused; at once, one for each ten open connections, and one more. If slow
    clients could save up more, they would share an overloaded server less evenly; if fast ones could not, chance would
    slow them down. Connections stay open for a while: a client that has just received most of its responses may still
    have refusals to note. The bucket begins empty, since hundreds of clients may start at once at a server that is
    overloaded already. A client has one for all endpoints.

    Args:
        most: how many connections the client may have.
    """

    COST = 20
    SAVED = 2  # tokens for each connection

    def __init__(self, most: int) -> None:
        self._lock = threading.Lock()
        self._capacity = self.COST + self.SAVED * most
        self._tokens = 0

    def earn(self) -> None:
        """Note a good response. The check without the lock keeps the common case free of it."""
        if self._tokens < self._capacity:
            with self._lock:
                self._tokens = min(self._capacity, self._tokens + 1)

    def spend(self, connections: int) -> bool:
        """Note a refusal, while so many connections are open. Whether it is tolerated."""
        with self._lock:
            self._tokens = min(self._tokens, self.COST + self.SAVED * connections)
            if self._tokens < self.COST:
                return False
            self._tokens -= self.COST
            return True
