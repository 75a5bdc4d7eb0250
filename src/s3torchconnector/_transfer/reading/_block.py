"""A piece of an object in memory of ours, or on its way there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from s3torchconnector._errors import S3Exception
from s3torchconnector._transfer.engine._budget import ByteBudget
from s3torchconnector._transfer.engine._memory import LargeBuffer
from s3torchconnector._transfer.engine._outcome import Outcome
from s3torchconnector._transfer.engine._ranges import Range
from s3torchconnector._transfer.reading._ledger import NOT_SUMMED, Ledger
from s3torchconnector._transfer.reading._memory_guard import MemoryGuard
from s3torchconnector._wire import CancelledByCaller, is_retryable


class GivenUp(CancelledByCaller):
    """Bytes that were fetched unasked made room for work that somebody waits for. Never reaches users."""


class Block:
    """Bytes ``start`` up to ``stop`` of an object, within the budget. Who fetches them is told by subclass or owner.

    ``discard`` or ``hand_over`` gives back what it has taken of the budget, whatever comes first, once. Until the bytes
    are there ``stop`` is a wish; a negative ``start`` (with any ``stop``) wishes for the object's last bytes.
    """

    def __init__(self, budget: ByteBudget, wanted: Range) -> None:
        self.start, self.stop = wanted
        self.ready = False  # whether the bytes are there; asked without a lock, also by a forked child
        self.elsewhere = False  # whether they are in memory that was offered
        self.given_up = False  # whether they will not come, through no fault: to be asked for otherwise
        self.sums = NOT_SUMMED  # of all its bytes, once they are there
        self.ledger: Ledger | None = None  # where its reader has entered it
        self._budget = budget
        self._reserved = 0  # bytes of the budget
        self.age = 0  # the larger, the later it was asked for
        self._outcome = Outcome()
        self._block: LargeBuffer | None = None  # to be used again
        self._data: memoryview | bytes | None = b""  # None: others needed the memory

    def inherited(self, budget: ByteBudget) -> Block:
        """A landed part of the parent's as a forked child's own: the same bytes, and none of the parent's locks."""
        part = Block(budget, Range(self.start, self.stop))
        part._data = self._data  # the thread that would take it away is not here
        part.sums = self.sums
        part.ready = True
        part._outcome.settle()
        return part

    def reserve(self, size: int, *, unread: bool) -> bool:
        """Take ``size`` bytes of the budget for it, if they are free; ``unread``: see ``ByteBudget.try_take``."""
        before = self._reserved
        self._reserved += size * self._budget.try_take(size, unread=unread)  # in one, between two interrupts
        return self._reserved > before

    def data(self) -> memoryview | bytes:
        """The bytes, once they are there.

        Raises:
            GivenUp: others needed the memory, through no fault: ask for them otherwise.
            S3Exception: they could not be fetched.
        """
        if not self.ready:
            self._hasten()
            self._outcome.wait()
        data = self._data  # once: another thread may take it away
        if data is None:
            raise GivenUp("given up: others needed the memory")
        return data

    def await_head(self) -> None:
        """Wait until an answer for this part has begun, or none will."""

    def offer(self, view: memoryview) -> bool:
        """Let the bytes be received into ``view``, which has as many, or copied there by who received them, until
        ``withdraw``; ``elsewhere`` tells.

        Returns whether a worker waits for memory, and is to be woken.
        """
        return False

    def withdraw(self) -> None:
        """Stop fetching, if need be: when this returns, nothing touches the memory that was offered. Can be interrupted
        and called again."""

    def make_way(self) -> None:
        """Let go, and take no more: its reader has been idle, and others need the memory. Called by any thread."""
        self.let_go()

    def let_go(self) -> None:
        """Give back the bytes if they are here: they can be asked for again. Called by any thread."""
        with self._budget.lock:
            if self.ready and self._reserved:
                self.ready, self.given_up = False, True  # before the bytes go: a forked child looks in that order
                self._data = None
                self._block = None  # not to be used again: the reader may be copying from it
                self.hand_over()

    def _hasten(self) -> None:
        """A reader waits for this part."""

    @property
    def failed(self) -> bool:
        """Whether the bytes will not come: ``data`` says why."""
        return self._outcome.settled and not self.ready

    @property
    def lapsed(self) -> bool:
        """Whether the bytes will not come, and can be asked for again: what was in the way may be over."""
        if not self.failed:
            return False
        return self.given_up or (isinstance(self._outcome.error, S3Exception) and is_retryable(self._outcome.error))

    def hand_over(self) -> None:
        """Give the budget its bytes back; the memory lives on as long as its reader, on the program's account."""
        with self._budget.lock:  # against ``let_go``
            reserved, self._reserved = self._reserved, 0
            if reserved:
                self._budget.give(reserved)

    def hand_over_when_ready(self) -> None:
        """``hand_over``, once no more memory will be taken for this part."""
        self._when_ready(self.hand_over)

    def discard(self) -> None:
        """The bytes are not wanted any more: let go of the memory, as soon as nobody receives into it."""
        self._when_ready(self._release)

    def _when_ready(self, callback: Callable[[], None]) -> None:
        """Call it at once if the bytes are here, else when they are or will not come."""
        if self.ready:
            callback()
        else:
            self._outcome.when_settled(callback)

    def _release(self) -> None:
        with self._budget.lock:  # against ``let_go``
            self._data = b""
            block, self._block = self._block, None
            reserved, self._reserved = self._reserved, 0
            if reserved:
                self._budget.give(reserved, [block] if block is not None else ())


class Destinations(MemoryGuard):
    """Gives each missing block its place in a reader's memory: ``with Destinations(budget, blocks, wanted, view)``.

    When the block of code is left, all of that memory is the reader's alone again.
    """

    def __init__(self, budget: ByteBudget, parts: Sequence[Block], wanted: Range, view: memoryview) -> None:
        self._budget = budget
        inside = [part for part in parts if wanted.start <= part.start and part.stop <= wanted.stop]
        self._missing = [part for part in inside if not part.ready]
        self._start = wanted.start
        self._view = view

    def __enter__(self) -> Destinations:
        someone_waits = False
        for part in self._missing:
            someone_waits |= part.offer(self._view[part.start - self._start : part.stop - self._start])
        if someone_waits:
            self._budget.wake()
        return self

    def _stop_writers(self) -> None:
        for part in self._missing:
            part.withdraw()

    _await_writers = _stop_writers  # who reads has waited for what it wants
