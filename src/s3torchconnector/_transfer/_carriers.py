"""Many small requests on few threads.

A thread for each small object spends more time on taking the interpreter lock in turns than on the object: three
system calls, and as many switches. A carrier sends many requests, waits for whichever answer comes first, and receives
it in one go; with the answers of others already in the kernel's buffers it goes on without a switch.

Contract: ``submit`` queues an errand; some carrier calls its ``begin``, waits until its exchange is readable, and
calls its ``finish``, which settles its future. A carrier runs on a worker thread while there are errands, and takes
new ones between two receptions. An exchange that stays silent for ``silence`` seconds is aborted and finished, so that
its errand can try again.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol

from s3torchconnector._transfer._workers import Workers
from s3torchconnector._wire import Exchange, PoolIsFull

_MOST_CARRIERS = 8


class Errand(Protocol):
    """A request that can be sent and received in two steps."""

    def begin(self, *, wait: bool) -> Exchange | None:
        """Send; None where there is nothing to wait for.

        Raises:
            PoolIsFull: all connections are in use, and ``wait`` is false. May be called again.
        """

    def finish(self) -> None:
        """Receive, and settle what depends on it. Does not raise."""


class Carriers:
    """Runs errands on at most a few of ``workers``' threads, ``most`` on their way at a time."""

    def __init__(self, workers: Workers, most: int, silence: float) -> None:
        self._workers = workers
        self._count = max(1, min(_MOST_CARRIERS, most // 4))
        self._width = -(-most // self._count)
        self._silence = silence
        self._lock = threading.Lock()
        self._queue: deque[Errand] = deque()
        self._carriers: set[_Carrier] = set()

    def submit(self, errand: Errand) -> None:
        """Have ``errand`` begun and finished. Does not wait."""
        with self._lock:
            self._queue.append(errand)
            newcomer = self._recruit()
        self._start(newcomer)

    def _recruit(self) -> _Carrier | None:
        """Under the lock: see to it that a carrier with room looks at the queue; returns one that is to be started."""
        if any(carrier.wake_for_more(self._width) for carrier in self._carriers):
            return None
        if len(self._carriers) >= self._count:
            return None  # all are full, and look at the queue when they have received something
        carrier = _Carrier(self._silence)
        self._carriers.add(carrier)
        return carrier

    def _start(self, carrier: _Carrier | None) -> None:
        if carrier is not None:
            try:
                self._workers.run(lambda: self._carry(carrier))
            except RuntimeError:  # closed, or no thread to be had
                with self._lock:
                    self._carriers.discard(carrier)
                carrier.close()
                raise

    def _carry(self, carrier: _Carrier) -> None:
        while True:
            while (errand := self._next(carrier)) is not None:
                try:
                    # Who has connections in use must not wait for another: two who do could wait for each other.
                    carrier.begin(errand, wait=not carrier.load)
                except PoolIsFull:
                    with self._lock:
                        self._queue.appendleft(errand)
                    break
            if not carrier.load:
                break
            for errand in carrier.wait():
                errand.finish()
                del errand
        carrier.close()

    def _next(self, carrier: _Carrier) -> Errand | None:
        newcomer = None
        with self._lock:
            errand = self._queue.popleft() if self._queue and carrier.load < self._width else None
            if errand is None and carrier.load:
                carrier.sleeping = True
                newcomer = self._recruit() if self._queue else None
            elif errand is None:
                self._carriers.discard(carrier)
        with suppress(RuntimeError):  # then this one looks at the queue again, when it has received something
            self._start(newcomer)
        return errand


class _Carrier:
    """The errands one thread has on their way. All but ``wake_for_more`` is that thread's."""

    def __init__(self, silence: float) -> None:
        self._silence = silence
        self._poll = select.poll()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        self._poll.register(self._wake_read, select.POLLIN)
        self._under_way: dict[int, tuple[Errand, Exchange]] = {}  # by descriptor, the oldest first
        self.sleeping = False  # under the carriers' lock: waiting, and not yet woken

    @property
    def load(self) -> int:
        return len(self._under_way)

    def begin(self, errand: Errand, *, wait: bool) -> None:
        exchange = errand.begin(wait=wait)
        if exchange is None:
            errand.finish()
            return
        descriptor = exchange.fileno()
        self._poll.register(descriptor, select.POLLIN)
        self._under_way[descriptor] = errand, exchange

    def wake_for_more(self, width: int) -> bool:
        """Whether it is or will be looking at the queue with room to spare; wakes it if it waits."""
        if self.load >= width:
            return False
        if self.sleeping:
            self.sleeping = False
            os.write(self._wake_write, b"\0")
        return True

    def wait(self) -> Iterator[Errand]:
        """Wait until an answer begins, or there is more to take, or silence has lasted too long."""
        oldest = next(iter(self._under_way.values()))[1]
        patience = oldest.started + self._silence - time.perf_counter()
        ready = self._poll.poll(max(0.0, patience * 1000))
        self.sleeping = False
        if not ready:
            oldest.abort()  # which makes it readable
        for descriptor, _ in ready:
            if descriptor == self._wake_read:
                os.read(descriptor, 4096)
                continue
            self._poll.unregister(descriptor)
            yield self._under_way.pop(descriptor)[0]

    def close(self) -> None:
        os.close(self._wake_read)
        os.close(self._wake_write)
