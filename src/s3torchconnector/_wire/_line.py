"""Threads that wait their turn, first come first served.

Contract: the owner of a ``Line`` calls everything but ``Ticket.wait`` under its lock. Whoever has a turn to give away
calls ``admit``; if that says no, the turn is nobody's. A ticket that gave up is handed to ``leave``, and if a turn had
been given to it meanwhile, the owner has to give that away again.

A condition variable would not do: one who comes at the right moment overtakes those it has woken.
"""

from __future__ import annotations

from collections import deque

from s3torchconnector._errors import S3TimeoutError
from s3torchconnector._latch import Latch
from s3torchconnector._wire._patience import Patience


class Ticket:
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

    def wait(self, patience: Patience) -> None:
        """Wait for the turn.

        Raises:
            CancelledByCaller: the token was cancelled.
            S3TimeoutError: the time was over before.
        """
        try:
            patience.token.enter(self)
            self._latch.wait(patience.left())
        finally:
            patience.token.leave(self)
        patience.token.check()
        if not self.admitted:
            raise S3TimeoutError("its turn did not come")


class Line:
    """Tickets in the order in which they were drawn."""

    def __init__(self) -> None:
        self._tickets: deque[Ticket] = deque()

    def __len__(self) -> int:
        return len(self._tickets)

    def join(self) -> Ticket:
        """The last place."""
        ticket = Ticket()
        self._tickets.append(ticket)
        return ticket

    def admit(self) -> bool:
        """Give a turn to who waits longest; False if nobody does."""
        if not self._tickets:
            return False
        self._tickets.popleft().admit()
        return True

    def leave(self, ticket: Ticket) -> bool:
        """``ticket`` gave up; whether it holds a turn that it will not use."""
        if not ticket.admitted:
            self._tickets.remove(ticket)
        return ticket.admitted
