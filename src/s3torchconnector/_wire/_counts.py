"""Whole numbers by code: each client of a process has its own, and a process has those of its clients and its children.

Counting is never off, so it may cost a request a microsecond: a code is looked up in a dictionary, and an element of an
array is incremented. The numbers of a process are added up on demand. An array outlives its client and serves the next
one, which continues with its numbers. So nothing is lost, and nothing has to be added up when a client ends.

The arrays of a child are memory that its parent has, too, so that the parent knows at any time what its children have
done, however they end: a forked child's is mapped before the fork, and a child that is spawned is sent the descriptor,
together with a client. Both begin at zero.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING

from s3torchconnector._late_imports import no_fork
from s3torchconnector._platform import IS_POSIX, at_fork

if TYPE_CHECKING:
    from s3torchconnector._mapped_bytes import SharedNumbers

CAPACITY = 1000  # codes; there may be twice as many in theory, and some hundreds are used
_NOWHERE = CAPACITY - 1  # the place of any more codes, which is never read
_ARRAYS = 64  # of a child; unused pages take no memory
_HEAD = 2
_ROW = _HEAD + (1 + _ARRAYS) * CAPACITY

Values = list[int] | memoryview
"""By place."""


class Row:
    """What one child has counted, in memory shared with its parent: its process number, codes and arrays of values.

    Args:
        memory: ``_ROW`` numbers.
        owner: what keeps the memory.
    """

    def __init__(self, memory: memoryview, owner: object) -> None:
        self._memory = memory  # first the process, and how many arrays are in use
        self._owner = owner
        self._codes = self._array(0)

    @classmethod
    def mapped(cls) -> Row:
        """For a child that will be forked."""
        pages = mmap.mmap(-1, 8 * _ROW)
        return cls(memoryview(pages).cast("q"), pages)

    def begin(self, places: dict[int, int]) -> None:
        """This process is the child."""
        self._memory[0] = os.getpid()
        for code, place in places.items():
            self.name(place, code)

    def name(self, place: int, code: int) -> None:
        """Say which code the values at this place are of."""
        self._codes[place] = code

    def new_values(self) -> memoryview | None:
        """One more array, if there is one."""
        used = self._memory[1]
        if used == _ARRAYS:
            return None
        self._memory[1] = used + 1
        return self._array(used + 1)

    def add_to(self, totals: dict[int, int]) -> None:
        """Add what the child has counted."""
        codes = self._codes.tolist()
        for number in range(1, self._memory[1] + 1):
            for code, value in zip(codes, self._array(number).tolist(), strict=True):
                if code and value:
                    totals[code] = totals.get(code, 0) + value

    def _array(self, number: int) -> memoryview:
        return self._memory[_HEAD + number * CAPACITY : _HEAD + (number + 1) * CAPACITY]

    @property
    def is_over(self) -> bool:
        """Whether the child has ended. (If its number was given to another process, that one has to end, too.)"""
        if not self._memory[0]:
            return False
        try:
            os.kill(self._memory[0], 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
        return False


class ProcessCounts:
    """What this process and its children have counted. Thread-safe.

    Attributes:
        places: where the value of a code is; never 0.
        since: when it began, by ``time.monotonic``.
    """

    def __init__(self) -> None:
        self.places: dict[int, int] = {}
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.since = time.monotonic()
        self._lock = threading.RLock()
        self._arrays: list[Values] = []
        self._free: list[Values] = []  # arrays whose clients are no more
        self._row: Row | None = None  # in the parent's memory, too
        self._is_spawned = False
        self._children: list[Row] = []
        self._ended: dict[int, int] = {}  # what children had counted that are no more
        self._forking: dict[int, Row] = {}  # by thread
        self._spawning: tuple[weakref.ref[object], SharedNumbers] | None = None

    def place(self, code: int) -> int:
        """Where the value of ``code`` is; found a place for, if it has none."""
        with self._lock:
            found = self.places.get(code)
            if found is None:
                found = min(len(self.places) + 1, _NOWHERE)
                if self._row is not None and found != _NOWHERE:
                    self._row.name(found, code)
                self.places[code] = found
        return found

    def new_values(self, owner: object) -> Values:
        """An array for ``owner`` to add to, as long as it lives. It may have been another one's."""
        with self._lock:
            try:
                values = self._free.pop()
            except IndexError:
                values = (self._row and self._row.new_values()) or [0] * CAPACITY
                self._arrays.append(values)
        # One operation, which needs no lock: a finaliser may run at any moment.
        weakref.finalize(owner, self._free.append, values).atexit = False
        return values

    def by_code(self, values: Values) -> dict[int, int]:
        """What an array has, by code."""
        found = list(values)
        return {code: found[place] for code, place in self.places.copy().items() if found[place] and place != _NOWHERE}

    def own(self) -> dict[int, int]:
        """What this process has counted, by code."""
        with self._lock:
            return _sum(self.by_code(values) for values in self._arrays)

    def with_children(self) -> dict[int, int]:
        """What this process and its children have counted, by code."""
        with self._lock:
            self._fold()
            totals = _sum([self._ended, self.own()])
            for row in self._children:
                row.add_to(totals)
            return totals

    def for_spawned_child(self) -> SharedNumbers | None:
        """The memory of the child that is being spawned, for which something is pickled; None if there is none."""
        if "multiprocessing.context" not in sys.modules or not IS_POSIX:
            return None
        with no_fork:
            from multiprocessing import context

            from s3torchconnector._mapped_bytes import SharedNumbers
        child = context.get_spawning_popen()
        if child is None:
            return None
        with self._lock:
            if self._spawning is None or self._spawning[0]() is not child:
                numbers = SharedNumbers.zeros(_ROW)
                self._spawning = weakref.ref(child), numbers
                self._add_child(Row(numbers.numbers, numbers))
            return self._spawning[1]

    def count_in(self, numbers: SharedNumbers) -> None:
        """In a spawned child: new clients count in its parent's memory; also if a server of forks has forked it."""
        with self._lock:
            if not self._is_spawned:
                self._is_spawned = True
                self._begin(Row(numbers.numbers, numbers))

    def before_fork(self) -> None:
        try:
            self._forking[threading.get_ident()] = Row.mapped()
        except (OSError, ValueError):  # no memory can be mapped: the parent will not know what the child does
            self._forking.pop(threading.get_ident(), None)

    def after_fork_in_parent(self) -> None:
        row = self._forking.pop(threading.get_ident(), None)
        if row is not None:
            with self._lock:
                self._add_child(row)

    def after_fork_in_child(self) -> None:
        row = self._forking.get(threading.get_ident())
        self._begin_anew()
        if row is not None:
            self._begin(row)

    def _begin(self, row: Row) -> None:
        self._row = row
        self._free.clear()
        row.begin(self.places)

    def _add_child(self, row: Row) -> None:
        if len(self._children) % 16 == 15:
            self._fold()
        self._children.append(row)

    def _fold(self) -> None:
        """Under the lock: keep only the numbers of children that have ended."""
        for row in [row for row in self._children if row.is_over]:
            self._children.remove(row)
            row.add_to(self._ended)


def _sum(several: Iterable[dict[int, int]]) -> dict[int, int]:
    totals: dict[int, int] = {}
    for each in several:
        for code, value in each.items():
            totals[code] = totals.get(code, 0) + value
    return totals


counts = ProcessCounts()

at_fork(
    before=counts.before_fork,
    after_in_parent=counts.after_fork_in_parent,
    after_in_child=counts.after_fork_in_child,
)
