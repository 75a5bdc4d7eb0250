"""Many operations on several threads, counted, watched, and drawn from one seed.

Each operation draws from the seed and its own number, whichever thread does it.
"""

from __future__ import annotations

import collections
import random
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator

from s3torchconnector._errors import S3Exception
from tests.faults.operations import READS, SAVES, Moved, Operation, Place, iterate, iterate_listed
from tests.faults.watchdog import Watchdog

_READS = {iterate: 6, iterate_listed: 12}  # others are one each


def mixed(reads: int, saves: int, seed: int) -> list[Operation]:
    """So many reads (those of a dataset count each) and saves, in any order."""
    dice = random.Random(seed)
    chosen = [dice.choice(SAVES) for _ in range(saves)]
    while reads > 0:
        chosen.append(dice.choice(READS))
        reads -= _READS.get(chosen[-1], 1)
    dice.shuffle(chosen)
    return chosen


def endless(seed: int, go_on: Callable[[], bool]) -> Iterator[Operation]:
    """Reads, and now and then a save, as long as ``go_on``."""
    dice = random.Random(seed)
    while go_on():
        yield dice.choice(SAVES) if dice.random() < 0.1 else dice.choice(READS)


class Workload:
    """Does operations, once.

    Args:
        seed: what they are drawn from.
        seconds: what one of them may take.

    Attributes:
        moved: what the successful operations transferred.
        errors: what ended in an ``S3Exception``, by type and operation.
        wrong: wrong bytes and other errors; hangs with the stacks of all threads.
    """

    def __init__(self, seed: int, seconds: float) -> None:
        self.moved = Moved()
        self.errors: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self._seed = seed
        self._watchdog = Watchdog(seconds)
        self._lock = threading.Lock()
        self._at_work = 0

    def run(self, place: Place, operations: Iterable[Operation], threads: int) -> None:
        """Return when all are done, or when one hangs; then the threads are not joined."""
        numbered = enumerate(operations)
        self._at_work = threads
        workers = [threading.Thread(target=self._work, args=(place, numbered), daemon=True) for _ in range(threads)]
        with self._watchdog:
            for worker in workers:
                worker.start()
            self._watchdog.wait(lambda: not self._at_work)
        self.wrong += self._watchdog.missed
        if not self._watchdog.missed:
            for worker in workers:
                worker.join()

    def _work(self, place: Place, numbered: Iterator[tuple[int, Operation]]) -> None:
        while (following := self._next(numbered)) is not None:
            self._do(place, *following)
        with self._lock:
            self._at_work -= 1
        self._watchdog.wake()

    def _next(self, numbered: Iterator[tuple[int, Operation]]) -> tuple[int, Operation] | None:
        with self._lock:
            return None if self.wrong or self._watchdog.missed else next(numbered, None)

    def _do(self, place: Place, number: int, operation: Operation) -> None:
        name = operation.__name__
        try:
            with self._watchdog.watch(f"{name} (operation {number} of seed {self._seed})"):
                moved = operation(place, random.Random(f"{self._seed}/{number}"))
        except S3Exception as error:
            with self._lock:
                self.errors[f"{type(error).__name__} in {name}: {error}"] += 1
        except BaseException:
            with self._lock:
                self.wrong.append(f"{name} (operation {number} of seed {self._seed}):\n{traceback.format_exc()}")
        else:
            with self._lock:
                self.moved.reads += moved.reads
                self.moved.saves += moved.saves
                self.moved.bytes += moved.bytes
