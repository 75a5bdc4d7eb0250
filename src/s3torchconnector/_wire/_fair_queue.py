"""Threads that wait their turn, first come first served.

Contract: the owner of a ``FairQueue`` calls everything but ``Waiter.wait`` under its lock. Whoever has a permit to
give away calls ``admit``; if that says no, the permit is nobody's. A waiter that gave up is handed to ``leave``, and if
a permit had been given to it meanwhile, the owner has to give that away again.

A condition variable would not do: one who comes at the right moment overtakes those it has woken.
"""

from __future__ import annotations

from collections import deque

from s3torchconnector._errors import S3TimeoutError
from s3torchconnector._latch import Latch
from s3torchconnector._wire._deadline import Deadline


class Waiter:
    """A place in the line."""

    def __init__(self) -> None:
        self.admitted = False
        self._latch = Latch()

    def admit(self) -> None:
        self.admitted = True
        self._latch.open()

    def abort(self) -> None:
        """Wake who waits, for nothing: the token was cancelled."""
        self._latch.open()

    def wait(self, deadline: Deadline) -> None:
        """Wait for the turn.

        Raises:
            CancelledByCaller: the token was cancelled.
            S3TimeoutError: the time was over before.
        """
        try:
            deadline.token.enter(self)
            self._latch.wait(deadline.left())
        finally:
            deadline.token.leave(self)
        deadline.token.check()
        if not self.admitted:
            raise S3TimeoutError("its turn did not come")


class FairQueue:
    """Tickets in the order in which they were drawn."""

    def __init__(self) -> None:
        self._tickets: deque[Waiter] = deque()

    def __len__(self) -> int:
        return len(self._tickets)

    def join(self) -> Waiter:
        """The last place."""
        ticket = Waiter()
        self._tickets.append(ticket)
        return ticket

    def admit(self) -> bool:
        """Give a turn to who waits longest; False if nobody does."""
        if not self._tickets:
            return False
        self._tickets.popleft().admit()
        return True

    def leave(self, ticket: Waiter) -> bool:
        """``ticket`` gave up; whether it holds a turn that it will not use."""
        if not ticket.admitted:
            self._tickets.remove(ticket)
        return ticket.admitted
