"""A first-come-first-served queue of threads that wait for a permit.

Contract: the owner of a ``FairQueue`` calls everything but ``Waiter.wait`` under its own lock. When a permit becomes
free, it calls ``admit``, which gives the permit to the first waiter; if that returns False, nobody waits and the owner
keeps the permit. A waiter that stops waiting is passed to ``leave``. If that returns True, the waiter had been given a
permit in the meantime, and the owner must pass it on.

A condition variable is not enough: a thread that arrives at the right moment would overtake the threads it has woken.
"""

from __future__ import annotations

from collections import deque

from s3torchconnector._errors import S3TimeoutError
from s3torchconnector._latch import Latch
from s3torchconnector._wire._deadline import Deadline


class Waiter:
    """A place in the queue."""

    def __init__(self) -> None:
        self.admitted = False
        self._latch = Latch()

    def admit(self) -> None:
        """Give this waiter its permit."""
        self.admitted = True
        self._latch.open()

    def abort(self) -> None:
        """Wake the waiting thread without a permit, because its token was cancelled."""
        self._latch.open()

    def wait(self, deadline: Deadline) -> None:
        """Wait for the permit.

        Raises:
            CancelledByCaller: the token was cancelled.
            S3TimeoutError: the deadline passed first.
        """
        try:
            deadline.token.enter(self)
            self._latch.wait(deadline.left())
        finally:
            deadline.token.leave(self)
        deadline.token.check()
        if not self.admitted:
            raise S3TimeoutError("the deadline passed while this request waited in a queue")


class FairQueue:
    """Waiters in order of arrival."""

    def __init__(self) -> None:
        self._waiters: deque[Waiter] = deque()

    def __len__(self) -> int:
        return len(self._waiters)

    def __repr__(self) -> str:
        return f"<FairQueue [{len(self._waiters)} waiting]>"

    def join(self) -> Waiter:
        """Append a waiter."""
        waiter = Waiter()
        self._waiters.append(waiter)
        return waiter

    def admit(self) -> bool:
        """Give a permit to the first waiter; False if nobody waits."""
        if not self._waiters:
            return False
        self._waiters.popleft().admit()
        return True

    def leave(self, waiter: Waiter) -> bool:
        """Remove a waiter that stopped waiting; True if it has a permit, which it will not use."""
        if not waiter.admitted:
            self._waiters.remove(waiter)
        return waiter.admitted
