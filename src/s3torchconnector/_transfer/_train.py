"""Consecutive parts that one request fills, one after the other.

A reader that reads in order wants requests of the part size, many under way, and yet little memory: so a request's
bytes land in blocks, each of which can be read as soon as it is full, takes its share of the budget only when its
bytes come, and is used again once it was read. A request that has just been sent holds half of its size of the
budget, as much as the average one has here: with less, there are more of them than there is memory for, and they wait.
"""

from __future__ import annotations

import time

from s3torchconnector._transfer._budget import BLOCK, ByteBudget
from s3torchconnector._transfer._fetch import RangeFetch
from s3torchconnector._transfer._memory import copy, populate
from s3torchconnector._transfer._object_version import ObjectVersion
from s3torchconnector._transfer._part import Part
from s3torchconnector._transfer._ranges import Range, split_on_grid
from s3torchconnector._transfer._runtime import Runtime
from s3torchconnector._wire import CancelledByCaller, CancelToken


class GivenUp(CancelledByCaller):
    """A train that waited for memory made room for work that somebody waits for. Never reaches users."""


def deposit(size: int) -> int:
    """Bytes of the budget that must have been taken for a train of ``size`` bytes."""
    return max(min(size, BLOCK), size // 2)


class Train:
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
        self.parts = [Car(self, self._budget, piece) for piece in split_on_grid(wanted.start, wanted.stop, BLOCK)]
        self._tickets = [True] * len(self.parts)  # one for each part that is wanted and not here
        self._coming = iter(self.parts)
        self._filling: Car | None = None
        self._needed = -1  # the position that a reader waits for: the parts up to there cannot wait for memory
        self._to_begin = [True]  # popped by whoever fetches, or by whoever calls it off before

    def fetch(self) -> None:
        """Receive the bytes, unless that has begun; runs on a worker. Does not raise."""
        if not self._claim():
            return
        error: BaseException | None = None
        try:
            self._fetch.run(self._caller, self._cancel)
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
        self._budget.give(credit)
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
        """Whether nobody waits for the part at ``position``, and others wait for the thread that would wait for it, or
        for its connection."""
        return (self._workers.are_wanted or self._caller.connections_are_wanted) and not self.is_needed(position)

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


class Car(Part):
    """One part of a train."""

    def __init__(self, train: Train, budget: ByteBudget, wanted: Range) -> None:
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
        missing = self.stop - self.start - deposit
        if missing and self._offered is None:
            self.lacks_memory = True  # before the look at the others, as offer and need do it the other way round
            began = time.perf_counter()
            self._budget.wait_take(missing, lambda: self._may_overdraw(cancel))
            cancel.excused += time.perf_counter() - began  # the program took its time
            self.lacks_memory = False
            self._reserved = missing
        self._begun = True  # before the look at what is offered, as withdraw does it the other way round
        offered, self._offered = self._offered, None
        cancel.check()
        if missing and offered is None and self._train.is_in_the_way(self.start):
            raise GivenUp("given up: other work needs the thread")
        if offered is not None:
            self.elsewhere = True
            self.hand_over()
            return offered
        self.from_deposit = deposit
        self._reserved += deposit
        self._block = self._budget.block()
        self._data = view = memoryview(self._block)[: self.stop - self.start]
        return view

    def offer(self, view: memoryview) -> bool:
        self._offered = view
        return self.lacks_memory

    def withdraw(self) -> None:
        self._offered = None
        if self._begun and not self.landed and not self._landing.settled:
            self._train.stop()
            self._landing.join()

    def settle(self, error: BaseException | None) -> None:
        offered, self._offered = self._offered, None
        if error is None and offered is not None and not self.elsewhere:
            # Offered too late to be received into, and yet nobody has to wait for its turn to be copied.
            copy(offered, self._data)
            self.elsewhere = True
            self._release()
        self.landed = error is None
        self.given_up = isinstance(error, GivenUp)
        self._landing.settle(error)
        self._count_down()

    def _hasten(self) -> None:
        self._train.need(self.start)

    def _may_overdraw(self, cancel: CancelToken) -> bool:
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
