"""Consecutive parts that one request fills, one after the other.

A reader that reads in order wants requests of the part size, many under way, and yet little memory: so a request's
bytes land in blocks, each of which can be read as soon as it is full, takes its share of the budget only when its
bytes come, and is used again once it was read. A request that has just been sent holds half of its size of the
budget, as much as the average one has here: with less, there are more of them than there is memory for, and they wait.
"""

from __future__ import annotations

import time

from s3torchconnector._transfer.engine._budget import BUFFER_SIZE, ByteBudget
from s3torchconnector._transfer.engine._memory import copy, new_buffer, populate
from s3torchconnector._transfer.engine._ranges import Range, split_on_grid
from s3torchconnector._transfer.engine._runtime import Runtime
from s3torchconnector._transfer.reading._block import Block, GivenUp
from s3torchconnector._transfer.reading._fetch import RangeFetch
from s3torchconnector._transfer.reading._object_version import ObjectVersion
from s3torchconnector._wire import CancelledByCaller, CancelToken


def deposit(size: int) -> int:
    """Bytes of the budget that must have been taken for a train of ``size`` bytes."""
    return max(min(size, BUFFER_SIZE), size // 2)


class StreamedRange:
    """A request for a range of a version whose size is known, and the parts that it fills.

    ``deposit`` bytes of the budget have been taken for it.
    """

    def __init__(self, runtime: Runtime, version: ObjectVersion, wanted: Range) -> None:
        self._caller = runtime.caller
        self._cancel = CancelToken()
        self._budget = runtime.budget
        self._workers = runtime.workers
        self._credit = deposit(wanted.size)
        self._fetch = RangeFetch(version, wanted.start, wanted.stop, self._next)
        self.parts = [
            StreamedBlock(self, self._budget, piece) for piece in split_on_grid(wanted.start, wanted.stop, BUFFER_SIZE)
        ]
        self._tickets = [True] * len(self.parts)  # one for each part that is wanted and not here
        self._coming = iter(self.parts)
        self._filling: StreamedBlock | None = None
        self._makes_way = False
        self._needed = -1  # the position that a reader waits for: the parts up to there cannot wait for memory
        self._to_begin = [True]  # popped by whoever fetches, or by whoever calls it off before

    def fetch(self) -> None:
        """Receive the bytes, unless that has begun; runs on a worker. Does not raise."""
        if not self._claim():
            return
        error: BaseException | None = None
        try:
            self._fetch.fetch(self._caller, self._cancel)
        except BaseException as failure:
            error = failure
        self._end(error)

    def call_off(self) -> None:
        """Fetch nothing more, and nothing at all if that has not begun."""
        self.stop()
        if self._claim():
            self._end(CancelledByCaller("called off"))

    def _claim(self) -> bool:
        try:
            return self._to_begin.pop()
        except IndexError:
            return False

    def _end(self, error: BaseException | None) -> None:
        credit, self._credit = self._credit, 0
        self._budget.give(credit, to_come=credit)
        if self._filling is not None:
            if error is None:
                self._filling.sums = self._fetch.take_sums()
            self._filling.settle(error)
        for part in self._coming:
            part.settle(error)

    def count_down(self) -> None:
        """One part fewer is to come or wanted; without any, nothing more is fetched."""
        self._tickets.pop()
        if not self._tickets:
            self.stop()

    def is_needed(self, position: int) -> bool:
        """Whether a reader waits for the part at ``position``, or for one that comes behind it."""
        return position <= self._needed

    def is_in_the_way(self, position: int) -> bool:
        """Whether nobody waits for the part at ``position``, and others wait for the thread that would wait for it, for
        its connection, or for memory that its reader does not use."""
        wanted = self._makes_way or self._workers.are_wanted or self._caller.connections_are_wanted
        return wanted and not self.is_needed(position)

    def make_way(self) -> None:
        """Wait for no more memory, unless a reader waits for that, and do not begin."""
        if not self._makes_way:
            self._makes_way = True
            if self._claim():
                self._end(GivenUp("given up before it began: others needed the memory"))
            self._budget.wake()

    def need(self, position: int) -> None:
        """A reader waits for the part at ``position``."""
        self._needed = position
        if self._to_begin:
            # Those before it in its lane may all be waiting for memory, which only this reader could give back.
            self._workers.run(self.fetch)
        if self._filling is not None and self._filling.lacks_memory:
            self._budget.wake()

    def stop(self) -> None:
        """Fetch nothing more: the parts that are not here fail."""
        self._cancel.cancel()
        self._budget.wake()

    def _next(self, _: Range) -> memoryview:
        if self._filling is not None:
            self._filling.sums = self._fetch.take_sums()
            self._filling.settle(None)
        self._filling = part = next(self._coming)
        view = part.memory(min(self._credit, part.stop - part.start), self._cancel)
        self._credit -= part.from_deposit
        populate(view)
        return view


class StreamedBlock(Block):
    """One part of a train."""

    def __init__(self, train: StreamedRange, budget: ByteBudget, wanted: Range) -> None:
        super().__init__(budget, wanted)
        self._train = train
        self._ticket = [True]
        self.from_deposit = 0  # bytes of its memory that the train had taken from the budget
        self.lacks_memory = False  # whether its train waits for room in the budget
        self._begun = False
        self._offered: memoryview | None = None

    def memory(self, deposit: int, cancel: CancelToken) -> memoryview:
        """Where to receive the bytes: what was offered, or a block, which waits for room in the budget.

        ``deposit`` bytes have been taken for it.
        """
        size = self.stop - self.start
        took = self._take(size - deposit, cancel)
        self._begun = True  # before the look at what is offered, as withdraw does it the other way round
        offered, self._offered = self._offered, None
        cancel.check()
        if offered is not None:
            self.elsewhere = True
            self.hand_over()
            return offered
        if not took:
            self._overdraw(size - deposit)
        self.from_deposit = deposit
        self._reserved += deposit
        if size < BUFFER_SIZE:
            self._budget.arrived(deposit)
            self._data = view = memoryview(new_buffer(size))
        else:
            self._block = self._budget.buffer(to_come=deposit)
            self._data = view = memoryview(self._block)
        return view

    def _take(self, missing: int, cancel: CancelToken) -> bool:
        """Wait for ``missing`` bytes of the budget; False where there is no need to, or no use."""
        if not missing or self._offered is not None:
            return not missing
        self.lacks_memory = True  # before the look at the others, as offer and need do it the other way round
        began = time.perf_counter()
        took = self._budget.wait_take(missing, lambda: self._need_not_wait(cancel), in_turn=True)
        cancel.paused += time.perf_counter() - began  # the program took its time
        self.lacks_memory = False
        if took:
            self._reserved = missing
        return took

    def _overdraw(self, missing: int) -> None:
        """Take memory that is not free for a reader that waits.

        Raises:
            GivenUp: nobody waits, or too many do.
        """
        if not self._train.is_needed(self.start) or not self._budget.try_take(missing, overdraw=True):
            raise GivenUp("given up: there is no memory, or other work needs the thread")
        self._reserved = missing

    def offer(self, view: memoryview) -> bool:
        self._offered = view
        return self.lacks_memory

    def withdraw(self) -> None:
        self._offered = None
        if self._begun and not self.ready and not self._outcome.settled:
            self._train.stop()
            self._outcome.join()

    def settle(self, error: BaseException | None) -> None:
        offered, self._offered = self._offered, None
        if error is None and offered is not None and self._data is not None and not self.elsewhere:
            # Offered too late to be received into, and yet nobody has to wait for its turn to be copied.
            copy(offered, self._data)
            self.elsewhere = True
            self._release()
        self.ready = error is None
        self.given_up = isinstance(error, GivenUp)
        self._outcome.settle(error)
        self._count_down()

    def make_way(self) -> None:
        self._train.make_way()
        super().make_way()

    def _hasten(self) -> None:
        self._train.need(self.start)

    def _need_not_wait(self, cancel: CancelToken) -> bool:
        free = self._train.is_needed(self.start) or self._offered is not None
        return free or cancel.cancelled or self._train.is_in_the_way(self.start)

    def discard(self) -> None:
        self._count_down()
        super().discard()

    def _count_down(self) -> None:
        """Tell the train, once, that this part is here or not wanted any more."""
        try:
            self._ticket.pop()
        except IndexError:
            return
        self._train.count_down()
