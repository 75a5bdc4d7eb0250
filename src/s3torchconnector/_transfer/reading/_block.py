"""Some bytes of an object that are in our memory, or being received."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from s3torchconnector._errors import S3Exception
from s3torchconnector._transfer.engine._budget import BUFFER_SIZE, ByteBudget
from s3torchconnector._transfer.engine._memory import LargeBuffer
from s3torchconnector._transfer.engine._outcome import Outcome
from s3torchconnector._transfer.engine._ranges import Range
from s3torchconnector._transfer.reading._ledger import NOT_SUMMED, Ledger
from s3torchconnector._transfer.reading._memory_guard import MemoryGuard
from s3torchconnector._wire import CancelledByCaller, is_retryable

LARGE = BUFFER_SIZE // 2 + 1
"""Bytes from which a block is not kept for reads that go back a little."""


class Released(CancelledByCaller):
    """Others needed the thread, or the memory of bytes that no thread waited for. Never reaches users."""


class Block:
    """Bytes ``start`` up to ``stop`` of an object, within the budget. Subclasses say who fetches them.

    What it has reserved of the budget goes back once: by ``discard`` or by ``unreserve``, whichever comes first. Until
    the bytes are here ``stop`` is a wish; a negative ``start`` (with any ``stop``) wishes for the object's last bytes.

    Attributes:
        ready: whether the bytes are here. Read without a lock, and by forked children.
        received_in_place: whether they are in a reader's memory (``set_destination``), and not in the block's.
        released: whether they will not come because others needed the memory: they can be asked for again.
        outcome: set when the bytes are here or will not come; claimed by the thread that fetches them or cancels that.
        sums: the checksums of all its bytes, once they are here.
        ledger: the ledger that has an entry of it.
        age: the larger, the later it was asked for.
    """

    ready = False
    received_in_place = False
    released = False
    sums = NOT_SUMMED
    ledger: Ledger | None = None
    age = 0
    _reserved = 0  # bytes of the budget
    _buffer: LargeBuffer | None = None  # goes back to the budget, to be used again
    _data: memoryview | bytes | None = b""  # None: others needed the memory

    def __init__(self, budget: ByteBudget, wanted: Range) -> None:
        self.start, self.stop = wanted
        self.outcome = Outcome()
        self._budget = budget

    def inherited(self, budget: ByteBudget) -> Block:
        """For a forked child: the bytes of the parent's block, which is ready, without the parent's locks."""
        block = Block(budget, Range(self.start, self.stop))
        block._data = self._data  # the thread that would release it does not exist here
        block.sums = self.sums
        block.ready = True
        block.outcome.set()
        return block

    def reserve(self, size: int, *, unread: bool, overdraw: bool = False) -> bool:
        """Reserve ``size`` bytes of the budget for it, if they are free. The rest: see ``ByteBudget.try_take``."""
        before = self._reserved
        # In one, between two interrupts.
        self._reserved += size * self._budget.try_take(size, unread=unread, overdraw=overdraw)
        return self._reserved > before

    def data(self) -> memoryview | bytes:
        """Wait for the bytes and return them.

        Raises:
            Released: others needed the memory; ask for the bytes in another way.
            S3Exception: they could not be fetched.
        """
        if not self.ready:
            self._expedite()
            self.outcome.wait()
        data = self._data  # once: another thread may release it
        if data is None:
            raise Released("released: others needed the memory")
        return data

    def await_head(self) -> None:
        """Wait until the head of a response for this block has arrived, or none will."""

    def set_destination(self, view: memoryview) -> bool:
        """Let the thread that receives the bytes receive them into ``view``, of the same length, or copy them there.

        ``received_in_place`` says whether it did. ``take_back_destination`` ends that.

        Returns whether that thread waits for memory, and has to be woken.
        """
        return False

    def take_back_destination(self) -> None:
        """Nothing touches the destination after this has returned; cancels the request if it has to. May be interrupted
        and called again."""

    def release_memory(self) -> None:
        """Free the memory if the bytes are here: they can be asked for again. Called by any thread."""
        with self._budget.lock:
            if self.ready and self._reserved:
                self.ready, self.released = False, True  # before the bytes go: a forked child looks in that order
                self._data = None
                self._buffer = None  # not to be used again: the reader may be copying from it
                self.unreserve()

    def cancel_and_release(self) -> None:
        """Free the memory, and reserve no more: the reader is idle, and others need it. Called by any thread."""
        self.release_memory()

    @property
    def failed(self) -> bool:
        """Whether the bytes will not come: ``data`` says why."""
        return self.outcome.is_set and not self.ready

    @property
    def can_be_retried(self) -> bool:
        """Whether the bytes will not come, but may if they are asked for again."""
        if not self.failed:
            return False
        return self.released or (isinstance(self.outcome.error, S3Exception) and is_retryable(self.outcome.error))

    def unreserve(self) -> None:
        """Give its bytes back to the budget. The memory lives on while the reader does, on the program's account."""
        with self._budget.lock:  # against ``release_memory``
            reserved, self._reserved = self._reserved, 0
            if reserved:
                self._budget.give_back(reserved)

    def unreserve_when_ready(self) -> None:
        """``unreserve`` as soon as it will reserve no more."""
        self._when_ready(self.unreserve)

    def discard(self) -> None:
        """The bytes are no longer needed: free the memory as soon as no thread receives into it."""
        self._when_ready(self._free)

    def _expedite(self) -> None:
        """A reader waits for this block."""

    def _when_ready(self, callback: Callable[[], None]) -> None:
        """Call it at once if the bytes have arrived, otherwise when they arrive or will not arrive."""
        if self.ready:
            callback()
        else:
            self.outcome.when_set(callback)

    def _free(self) -> None:
        with self._budget.lock:  # against ``release_memory``
            self._data = b""
            buffer, self._buffer = self._buffer, None
            reserved, self._reserved = self._reserved, 0
            if reserved:
                self._budget.give_back(reserved, [buffer] if buffer is not None else ())


class Destinations(MemoryGuard):
    """Gives each missing block its place in a reader's memory: ``with Destinations(budget, blocks, wanted, view)``.

    When the ``with`` block is left, all of that memory is the reader's alone again.
    """

    def __init__(self, budget: ByteBudget, blocks: Sequence[Block], wanted: Range, view: memoryview) -> None:
        self._budget = budget
        inside = [block for block in blocks if wanted.start <= block.start and block.stop <= wanted.stop]
        self._missing = [block for block in inside if not block.ready]
        self._start = wanted.start
        self._view = view

    def __enter__(self) -> Destinations:
        someone_waits = False
        for block in self._missing:
            someone_waits |= block.set_destination(self._view[block.start - self._start : block.stop - self._start])
        if someone_waits:
            self._budget.wake()
        return self

    def _stop_writers(self) -> None:
        for block in self._missing:
            block.take_back_destination()

    _await_writers = _stop_writers  # the reader has waited for the blocks that it wants
