"""The errands of the carrier that are on their way: what is waited for, received and sent again."""

from __future__ import annotations

import logging
import math
import os
import select
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from s3torchconnector._wire import Exchange, Hedging, NoIdleConnection, open_descriptors

_SCRATCH = 256 * 1024  # bytes: the head and the body of an object that is received in one system call
# Objects received before those who wait are woken. Woken for each, a reader and the carrier take the interpreter lock
# in turns, which costs a quarter of the time.
_AT_ONCE = 16
_log = logging.getLogger(__name__)


class MultiplexedRequest(Protocol):
    """A request that is sent and received in steps."""

    def connect(self) -> None:
        """Open a connection that ``begin`` or a second request will find; where that fails, go on elsewhere, unless
        it was begun meanwhile. Runs on a worker. Does not raise."""

    def begin(self, *, wait: bool, connect: bool) -> Exchange | None:
        """Send; None where there is nothing to wait for: it was given up, or goes on elsewhere.

        Raises:
            PoolIsFull: all connections are in use, and ``wait`` is false. May be called again.
            NoneIdle: a connection has to be opened, and ``connect`` is false. May be called again.
        """

    def proceed(self, scratch: bytearray) -> bool:
        """Receive what is here, by way of ``scratch``; whether there is nothing more to wait for. Does not raise."""

    def conclude(self) -> None:
        """Wake who waits for what was received. Does not raise."""

    def go_on(self) -> None:
        """It was begun, and is not carried any more: go on elsewhere. Does not raise."""

    def fail(self, error: Exception) -> None:
        """It will not be begun: tell who waits. Does not raise."""


class PollLoop:
    """The errands that are on their way. All but ``wake`` is the carrying thread's."""

    def __init__(self, silence: float, hedging: Hedging, connect: Callable[[MultiplexedRequest], bool]) -> None:
        self._silence = silence
        self._hedging = hedging
        self._connect = connect  # has a connection opened
        self._poll = select.poll()
        self._wake_read, self._wake_write = open_descriptors(os.pipe, "small objects cannot be fetched")
        os.set_blocking(self._wake_read, False)
        self._poll.register(self._wake_read, select.POLLIN)
        self._scratch = bytearray(_SCRATCH)
        self._under_way: dict[int, tuple[MultiplexedRequest, Exchange]] = {}  # by descriptor, the oldest first
        # Not yet hedged, by when they were sent, or had a connection opened for that; the oldest first. Whose answer
        # has begun is taken out, wherever it stands: it would be kept alive until all before it are answered.
        self._unanswered: dict[Exchange, tuple[float, MultiplexedRequest]] = {}
        self._over: deque[MultiplexedRequest] = deque()  # not concluded
        self.claimed = False  # under the carrier's lock
        self.sleeping = False  # under the carrier's lock: waiting, and not yet woken

    @property
    def load(self) -> int:
        return len(self._under_way)

    def begin(self, request: MultiplexedRequest, *, wait: bool, connect: bool) -> None:
        exchange = request.begin(wait=wait, connect=connect)
        if exchange is None:
            return
        self._watch(exchange.fileno(), request, exchange)
        self._unanswered[exchange] = exchange.started, request

    def _watch(self, descriptor: int, request: MultiplexedRequest, exchange: Exchange) -> None:
        self._poll.register(descriptor, select.POLLIN)
        self._under_way[descriptor] = request, exchange

    def _forget(self, descriptor: int) -> None:
        del self._under_way[descriptor]
        self._poll.unregister(descriptor)

    def wake(self, *, soon: bool = False) -> None:
        """There is more to take; ``soon``: by a thread that may be about to sleep because there was not."""
        if self.sleeping or soon:
            os.write(self._wake_write, b"\0")
            self.sleeping = False  # last, for who is interrupted before

    def receive(self, longest: float) -> None:
        """Wait until an answer goes on, there is more to take, silence has lasted too long, or for ``longest`` seconds;
        receive what is here."""
        now = time.perf_counter()
        self._hedge(now)
        oldest = next((exchange for _, exchange in self._under_way.values()), None)  # None: connections are opened
        end = oldest.started + self._silence if oldest is not None else math.inf
        first = next(iter(self._unanswered.values()), None)
        due = first[0] + self._hedging.delay if first is not None else end
        left = min(end - now, due - now, longest)
        ready = self._poll.poll(max(0.0, left * 1000) if left < math.inf else None)
        now = time.perf_counter()
        self.sleeping = False
        if oldest is not None and now >= end:  # however much of the others is here
            oldest.abort()  # which makes it readable
        for descriptor, _ in ready:
            if descriptor == self._wake_read:
                os.read(descriptor, 4096)
            elif (entry := self._under_way.get(descriptor)) is not None:
                self._proceed(descriptor, *entry, now)
                if len(self._over) >= _AT_ONCE:
                    self._conclude()
        self._conclude()

    def _proceed(self, descriptor: int, request: MultiplexedRequest, exchange: Exchange, now: float) -> None:
        if not exchange.is_responding:
            if not exchange.has_begun(descriptor):
                return
            self._unanswered.pop(exchange, None)
            self._hedging.note(now - exchange.started)
            other = exchange.keep_connection(descriptor)
            if other is not None:
                self._forget(other)
                exchange.discard_spare()
        # Before another round finds the connection in the pool, it is no longer watched: this thread does both.
        if request.proceed(self._scratch):
            self._over.append(request)
            self._forget(descriptor)

    def _conclude(self) -> None:
        while self._over:
            self._over.popleft().conclude()

    def _hedge(self, now: float) -> None:
        """Send again what should have been answered by ``now``; each request has one chance of that."""
        while self._unanswered:
            exchange, (since, request) = next(iter(self._unanswered.items()))
            if now < since + self._hedging.delay:
                return
            del self._unanswered[exchange]
            first = since == exchange.started
            if first and not self._hedging.spend():
                continue
            try:
                descriptor = exchange.hedge()
            except NoIdleConnection:
                if first and self._connect(request):
                    self._unanswered[exchange] = now, request
                continue
            except Exception:  # nobody thought of it; the first request is still on its way
                _log.exception("a late request could not be sent again")
                exchange.discard_spare()
                continue
            if descriptor is not None:
                self._watch(descriptor, request, exchange)

    def abandon(self) -> None:
        """The carrying thread cannot go on: conclude what is over, and have all the rest go on elsewhere. Does not
        raise."""
        over = set(self._over)
        under_way = {request: exchange for request, exchange in self._under_way.values() if request not in over}
        while self._over:
            _try(self._over.popleft().conclude)
        for request, exchange in under_way.items():
            _try(exchange.discard_spare)
            _try(request.go_on)
        self._under_way.clear()

    def close(self) -> None:
        os.close(self._wake_read)
        os.close(self._wake_write)


def _try(step: Callable[[], object]) -> None:
    try:
        step()
    except Exception:  # nobody thought of it, and the others are waited for, too
        _log.exception("an errand could not be ended")
