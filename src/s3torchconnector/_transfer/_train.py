"""Consecutive parts that one request fills, one after the other.

A reader that reads in order wants requests of the part size, many under way, and yet little memory: so a request's
bytes land in blocks, each of which can be read as soon as it is full, takes its share of the budget only when its
bytes come, and is used again once it was read. A request that has just been sent holds a quarter of its size of the
budget; the average one is half here.
"""

from __future__ import annotations

import time

from s3torchconnector._transfer._budget import BLOCK, ByteBudget
from s3torchconnector._transfer._fetch import ObjectVersion, RangeFetch
from s3torchconnector._transfer._part import Part
from s3torchconnector._transfer._ranges import Range, split_on_grid
from s3torchconnector._transfer._runtime import Runtime
from s3torchconnector._wire import CancelToken


def deposit(size: int) -> int:
    """Bytes of the budget that must have been taken for a train of ``size`` bytes."""
    return max(min(size, BLOCK), size // 4)


class Train:
    """A request for a range of a version whose size is known, and the parts that it fills."""

    def __init__(self, runtime: Runtime, version: ObjectVersion, wanted: Range) -> None:
        self._caller = runtime.caller
        self._cancel = CancelToken()
        self._budget = runtime.budget
        self._credit = deposit(len(wanted))
        self._fetch = RangeFetch(version, wanted.start, wanted.stop, self._next)
        self.parts = [Car(self, self._budget, piece) for piece in split_on_grid(*wanted, BLOCK)]
        self._wanted = len(self.parts)
        self._coming = iter(self.parts)
        self._filling: Car | None = None

    def fetch(self) -> None:
        """Receive the bytes; runs on a worker. Does not raise."""
        error: BaseException | None = None
        try:
            self._fetch.run(self._caller, self._cancel)
        except BaseException as failure:
            error = failure
        credit, self._credit = self._credit, 0
        self._budget.give(credit)
        if self._filling is not None:
            self._filling.settle(error)
        for part in self._coming:
            part.settle(error)

    def drop_one(self) -> None:
        """One part fewer is wanted; without any, nothing is fetched."""
        self._wanted -= 1
        if not self._wanted:
            self._cancel.cancel()
            self._budget.wake()

    def _next(self, _: Range) -> memoryview:
        if self._filling is not None:
            self._filling.settle(None)
        self._filling = part = next(self._coming)
        from_credit = min(self._credit, part.stop - part.start)
        self._credit -= from_credit
        part.take_memory(from_credit, self._cancel)
        return part.view()


class Car(Part):
    """One part of a train."""

    def __init__(self, train: Train, budget: ByteBudget, wanted: Range) -> None:
        super().__init__(budget, wanted, 0)
        self._train = train
        self._awaited = False
        self._lacks_memory = False

    def take_memory(self, credit: int, cancel: CancelToken) -> None:
        """Have a block, ``credit`` of whose bytes were taken from the budget before. Waits for room for the others."""
        self._reserved = credit
        missing = self.stop - self.start - credit
        if missing:
            self._lacks_memory = True  # before the look at _awaited, as _hasten does it the other way round
            began = time.perf_counter()
            self._budget.wait_take(missing, lambda: self._awaited or cancel.cancelled)
            cancel.excused += time.perf_counter() - began  # the program took its time
            self._lacks_memory = False
            self._reserved += missing
        cancel.check()
        self._block = self._budget.block()

    def view(self) -> memoryview:
        assert self._block is not None
        self._data = view = memoryview(self._block)[: self.stop - self.start]
        return view

    def settle(self, error: BaseException | None) -> None:
        self.landed = error is None
        self._landing.settle(error)

    def _hasten(self) -> None:
        self._awaited = True
        if self._lacks_memory:
            self._budget.wake()

    def discard(self) -> None:
        if not self.landed:
            self._train.drop_one()
        super().discard()
