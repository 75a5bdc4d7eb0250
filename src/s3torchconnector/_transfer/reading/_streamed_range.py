"""A range that one request fetches into consecutive blocks, in order.

A reader that reads in order wants requests of the part size, many of them under way, and yet little memory. So a
request's bytes go into blocks of ``BUFFER_SIZE``: each can be read as soon as it is full, reserves its share of the
budget only when its bytes come, and is used again after it was read. A request that has just been sent reserves half of
its size, as much as an average one has here: with less, there are more requests than there is memory for, and they
wait.
"""

from __future__ import annotations

import time

from s3torchconnector._transfer.engine._budget import BUFFER_SIZE, ByteBudget
from s3torchconnector._transfer.engine._memory import copy, new_buffer, populate
from s3torchconnector._transfer.engine._ranges import Range, split_on_grid
from s3torchconnector._transfer.engine._runtime import Runtime
from s3torchconnector._transfer.reading._block import Block, Released
from s3torchconnector._transfer.reading._fetch import RangeFetch
from s3torchconnector._transfer.reading._object_version import ObjectVersion
from s3torchconnector._wire import CancelledByCaller, CancelToken


def reservation(size: int) -> int:
    """Bytes of the budget to reserve before a range of ``size`` bytes is streamed."""
    return max(min(size, BUFFER_SIZE), size // 2)


class StreamedRange:
    """A request for a range of a version whose size is known, and the blocks that it fills.

    ``reservation`` bytes of the budget have been reserved for it.
    """

    def __init__(self, runtime: Runtime, version: ObjectVersion, wanted: Range) -> None:
        self._caller = runtime.caller
        self._cancel = CancelToken()
        self._budget = runtime.budget
        self._workers = runtime.workers
        self._reserved = reservation(wanted.size)  # what no block has yet
        self._fetch = RangeFetch(version, wanted.start, wanted.stop, self._next_memory)
        self.blocks = [
            StreamedBlock(self, self._budget, piece) for piece in split_on_grid(wanted.start, wanted.stop, BUFFER_SIZE)
        ]
        self._outstanding = [True] * len(self.blocks)  # one for each block that is wanted and not here
        self._following = iter(self.blocks)
        self._filling: StreamedBlock | None = None
        self._is_released = False
        self._awaited = -1  # the position that a reader waits for: the blocks up to there cannot wait for memory
        self._claims = [True]  # popped by the thread that fetches, or that cancels before that

    def fetch(self) -> None:
        """Receive the bytes, unless that has begun; runs on a worker. Does not raise."""
        if not self._claim():
            return
        error: BaseException | None = None
        try:
            self._fetch.fetch(self._caller, self._cancel)
        except BaseException as failure:
            error = failure
        self._finish(error)

    def cancel(self) -> None:
        """Fetch nothing more, and nothing at all if that has not begun: then the blocks fail at once."""
        self.cancel_request()
        if self._claim():
            self._finish(CancelledByCaller("cancelled"))

    def cancel_request(self) -> None:
        """Fetch nothing more: the thread that fetches, or will, has the blocks fail that are not here."""
        self._cancel.cancel()
        self._budget.wake()

    def _claim(self) -> bool:
        try:
            return self._claims.pop()
        except IndexError:
            return False

    def _finish(self, error: BaseException | None) -> None:
        reserved, self._reserved = self._reserved, 0
        self._budget.give_back(reserved, reserved=reserved)
        if self._filling is not None:
            if error is None:
                self._filling.sums = self._fetch.take_sums()
            self._filling.finish(error)
        for block in self._following:
            block.finish(error)

    def count_down(self) -> None:
        """One block fewer is wanted and not here; after the last, nothing more is fetched."""
        self._outstanding.pop()
        if not self._outstanding:
            self.cancel_request()

    def is_awaited(self, position: int) -> bool:
        """Whether a reader waits for the block at ``position``, or for one after it."""
        return position <= self._awaited

    def is_in_the_way(self, position: int) -> bool:
        """Whether no thread waits for the block at ``position``, and others need what its request would occupy while it
        waits for memory: the thread, the connection, or the memory of an idle reader."""
        wanted = self._is_released or self._workers.are_wanted or self._caller.connections_are_wanted
        return wanted and not self.is_awaited(position)

    def release(self) -> None:
        """Others need the memory: do not begin, and wait for no more memory unless a reader waits for that."""
        if not self._is_released:
            self._is_released = True
            if self._claim():
                self._finish(Released("released before it began: others needed the memory"))
            self._budget.wake()

    def expedite(self, position: int) -> None:
        """A reader waits for the block at ``position``."""
        self._awaited = position
        if self._claims:
            # Those before it in its lane may all be waiting for memory, which only this reader could give back.
            self._workers.submit(self.fetch)
        if self._filling is not None and self._filling.waits_for_memory:
            self._budget.wake()

    def _next_memory(self, _: Range) -> memoryview:
        if self._filling is not None:
            self._filling.sums = self._fetch.take_sums()
            self._filling.finish(None)
        self._filling = block = next(self._following)
        view = block.allocate(min(self._reserved, block.stop - block.start), self._cancel)
        self._reserved -= block.from_reservation
        populate(view)
        return view


class StreamedBlock(Block):
    """One block of a streamed range."""

    def __init__(self, streamed: StreamedRange, budget: ByteBudget, wanted: Range) -> None:
        super().__init__(budget, wanted)
        self._range = streamed
        self._outstanding = [True]
        self.from_reservation = 0  # bytes of its memory that the range had reserved
        self.waits_for_memory = False  # whether its range waits for room in the budget
        self._is_next = False  # its bytes come next, or have come
        self._destination: memoryview | None = None

    def allocate(self, reserved: int, cancel: CancelToken) -> memoryview:
        """Where to receive the bytes: the destination, or a buffer; waits for room in the budget.

        ``reserved`` bytes of it have been reserved by the range.
        """
        size = self.stop - self.start
        has_room = self._wait_for_room(size - reserved, cancel)
        self._is_next = True  # before the look at the destination, as ``take_back_destination`` does the reverse
        destination, self._destination = self._destination, None
        cancel.check()
        if destination is not None:
            self.received_in_place = True
            self.unreserve()
            return destination
        if not has_room:
            self._overdraw(size - reserved)
        self.from_reservation = reserved
        self._reserved += reserved
        if size < BUFFER_SIZE:
            self._budget.use_reserved(reserved)
            self._data = view = memoryview(new_buffer(size))
        else:
            self._buffer = self._budget.buffer(reserved=reserved)
            self._data = view = memoryview(self._buffer)
        return view

    def _wait_for_room(self, missing: int, cancel: CancelToken) -> bool:
        """Wait for ``missing`` bytes of the budget and reserve them; False if they are not needed, or will not come."""
        if not missing or self._destination is not None:
            return not missing
        self.waits_for_memory = True  # before the look at the others, as set_destination and expedite do the reverse
        began = time.perf_counter()
        took = self._budget.wait_take(missing, lambda: self._need_not_wait(cancel), queued=True)
        cancel.paused += time.perf_counter() - began  # the program took its time
        self.waits_for_memory = False
        if took:
            self._reserved = missing
        return took

    def _overdraw(self, missing: int) -> None:
        """Reserve memory that is not free, for a reader that waits.

        Raises:
            Released: no thread waits, or too many do.
        """
        if not self._range.is_awaited(self.start) or not self._budget.try_take(missing, overdraw=True):
            raise Released("released: there is no memory, or other work needs the thread")
        self._reserved = missing

    def set_destination(self, view: memoryview) -> bool:
        self._destination = view
        return self.waits_for_memory

    def take_back_destination(self) -> None:
        self._destination = None
        if self._is_next and not self.ready and not self.outcome.is_set:
            self._range.cancel_request()
            self.outcome.wait_until_set()

    def finish(self, error: BaseException | None) -> None:
        """The bytes have arrived, or will not arrive because of ``error``."""
        destination, self._destination = self._destination, None
        if error is None and destination is not None and self._data is not None and not self.received_in_place:
            # Too late to receive into it, but the reader need not wait until it comes to this block.
            copy(destination, self._data)
            self.received_in_place = True
            self._free()
        self.ready = error is None
        self.released = isinstance(error, Released)
        self.outcome.set(error)
        self._count_down()

    def cancel_and_release(self) -> None:
        self._range.release()
        super().cancel_and_release()

    def _expedite(self) -> None:
        self._range.expedite(self.start)

    def _need_not_wait(self, cancel: CancelToken) -> bool:
        free = self._range.is_awaited(self.start) or self._destination is not None
        return free or cancel.cancelled or self._range.is_in_the_way(self.start)

    def discard(self) -> None:
        self._count_down()
        super().discard()

    def _count_down(self) -> None:
        """Tell the range, once, that this block is complete or no longer needed."""
        try:
            self._outstanding.pop()
        except IndexError:
            return
        self._range.count_down()
