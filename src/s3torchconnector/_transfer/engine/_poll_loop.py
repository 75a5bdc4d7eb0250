"""The multiplexed requests in flight: waits for them, receives, and sends late requests again."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from s3torchconnector._activity import activity
from s3torchconnector._wire import POLLIN, Exchange, Hedging, NoIdleConnection, new_poll, new_wakeup, open_descriptors

_SCRATCH = 256 * 1024  # bytes: the head and the body of an object that is received in one system call
# Objects received before the waiting threads are woken. If they are woken for each object, a reader and the multiplexer
# alternate in holding the interpreter lock, which costs a quarter of the time.
_AT_ONCE = 16
_log = logging.getLogger(__name__)


class MultiplexedRequest(Protocol):
    """A request that is sent and received in steps. No step raises, but ``send`` as it says."""

    def connect(self) -> None:
        """Open a connection that ``send``, or a second request, will find. If that fails, continue on a worker,
        unless the request has been sent meanwhile. Runs on a worker."""

    def send(self, *, wait: bool, connect: bool) -> Exchange | None:
        """Send it; None if there is nothing to wait for: it was cancelled, or continues on a worker.

        Raises:
            PoolIsFull: all connections are in use, and ``wait`` is false. May be called again.
            NoIdleConnection: a connection has to be opened, and ``connect`` is false. May be called again.
        """

    def receive(self, scratch: bytearray) -> bool:
        """Receive the bytes that have arrived, through ``scratch``. Returns whether nothing is left to wait for."""

    def notify(self) -> None:
        """Wake the threads that wait for the received bytes."""

    def continue_on_worker(self) -> None:
        """It was sent, and is not multiplexed any more: have a worker continue it."""

    def fail(self, error: Exception) -> None:
        """It will not be sent: notify the waiting threads."""


class PollLoop:
    """The requests that are under way. All but ``wake`` and ``requests`` belongs to the thread that runs the loop."""

    def __init__(self, silence: float, hedging: Hedging, connect: Callable[[MultiplexedRequest], bool]) -> None:
        self._silence = silence
        self._hedging = hedging
        self._connect = connect  # has a connection opened
        self._poll = new_poll()
        self._wakeup = open_descriptors(new_wakeup, "small objects cannot be fetched")
        self._woken = self._wakeup.fileno()
        self._poll.register(self._woken, POLLIN)
        self._scratch = bytearray(_SCRATCH)
        self._under_way: dict[int, tuple[MultiplexedRequest, Exchange]] = {}  # by descriptor, the oldest first
        # Requests not yet hedged, and when they were sent or had a connection opened for that; the oldest first. A
        # request whose response has begun is removed from any position: otherwise it would stay alive until all earlier
        # ones are removed.
        self._unanswered: dict[Exchange, tuple[float, MultiplexedRequest]] = {}
        self._received: deque[MultiplexedRequest] = deque()  # to be notified
        self.claimed = False  # under the multiplexer's lock
        self.sleeping = False  # under the multiplexer's lock: waiting, and not yet woken

    @property
    def load(self) -> int:
        """How many requests are under way."""
        return len(self._under_way)

    def requests(self) -> list[str]:
        """What is under way, the oldest first. Any thread may ask."""
        return list({repr(exchange): None for _, exchange in self._under_way.copy().values()})

    def __repr__(self) -> str:
        oldest = "".join([f", the oldest: {each}" for each in self.requests()[:1]])
        return f"<PollLoop [{self.load} requests under way{oldest}]>"

    def send(self, request: MultiplexedRequest, *, wait: bool, connect: bool) -> None:
        """Send ``request``, and wait for its response from now on. Raises what its ``send`` does."""
        exchange = request.send(wait=wait, connect=connect)
        if exchange is None:
            return
        self._watch(exchange.fileno(), request, exchange)
        self._unanswered[exchange] = exchange.started, request

    def _watch(self, descriptor: int, request: MultiplexedRequest, exchange: Exchange) -> None:
        self._poll.register(descriptor, POLLIN)
        self._under_way[descriptor] = request, exchange

    def _forget(self, descriptor: int) -> None:
        del self._under_way[descriptor]
        self._poll.unregister(descriptor)

    def wake(self, *, always: bool = False) -> None:
        """There is more to send; ``always``: the thread may be about to sleep, because there was not."""
        if self.sleeping or always:
            self._wakeup.wake()
            self.sleeping = False  # last, for who is interrupted before

    @activity("fetches small objects: {}", "self")
    def receive(self, longest: float) -> None:
        """Wait until more of a response has arrived, there is more to send, silence has lasted too long, or for
        ``longest`` seconds. Then receive the bytes that have arrived."""
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
            if descriptor == self._woken:
                self._wakeup.clear()
            elif (entry := self._under_way.get(descriptor)) is not None:
                self._receive_on(descriptor, *entry, now)
                if len(self._received) >= _AT_ONCE:
                    self._notify()
        self._notify()

    def _receive_on(self, descriptor: int, request: MultiplexedRequest, exchange: Exchange, now: float) -> None:
        if not exchange.is_responding:
            if not exchange.has_begun(descriptor):
                return
            self._unanswered.pop(exchange, None)
            self._hedging.note(now - exchange.started)
            other = exchange.keep_connection(descriptor)
            if other is not None:
                self._forget(other)
                exchange.discard_spare()
        # Before another loop finds the connection in the pool, it is no longer watched: this thread does both.
        if request.receive(self._scratch):
            self._received.append(request)
            self._forget(descriptor)

    def _notify(self) -> None:
        while self._received:
            self._received.popleft().notify()

    def _hedge(self, now: float) -> None:
        """Send again what should have had a response by ``now``. Each request is hedged at most once."""
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
            except Exception:  # unexpected; the first request is still under way
                _log.exception("a late request could not be sent again")
                exchange.discard_spare()
                continue
            if descriptor is not None:
                self._watch(descriptor, request, exchange)

    def continue_on_workers(self) -> None:
        """This loop is broken: notify what was received, and have workers continue the rest. Does not raise."""
        received = set(self._received)
        under_way = {request: exchange for request, exchange in self._under_way.values() if request not in received}
        while self._received:
            _try(self._received.popleft().notify)
        for request, exchange in under_way.items():
            _try(exchange.discard_spare)
            _try(request.continue_on_worker)
        self._under_way.clear()

    def close(self) -> None:
        """Close what wakes the thread."""
        self._wakeup.close()


def _try(step: Callable[[], object]) -> None:
    try:
        step()
    except Exception:  # unexpected, and others are waited for, too
        _log.exception("a request for a small object could not be ended")
