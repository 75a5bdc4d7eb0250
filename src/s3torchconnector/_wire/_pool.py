"""Open connections of one process: handed out last-in first-out, one to a thread at a time.

Who acquires a connection gives it back with ``release`` (it can serve another request) or ``discard``. What to do is
decided under the lock; connecting (``_dialer``) and closing happen outside it.

Idle connections are closed when they are too old, when the process has no descriptor left (``_descriptors``), and the
oldest of them when another has to be opened and there are as many as may be.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3Exception, S3TimeoutError
from s3torchconnector._wire import _descriptors
from s3torchconnector._wire._connection import Connection
from s3torchconnector._wire._deadline import Deadline
from s3torchconnector._wire._dialer import Address, Dialer
from s3torchconnector._wire._fair_queue import FairQueue, Waiter

_DROP_AFTER = 20.0  # seconds idle after which it is not worth a look: S3 closes idle connections

Run = Callable[[Callable[[], None]], object]


class PoolIsFull(S3Exception):
    """As many connections are in use as may be. Never reaches users."""


class ConnectionPool:
    """At most ``config.max_connections`` connections, in use and idle ones together.

    ``when_wanted`` is called when somebody begins to wait for one. ``run`` has a thread call something. ``when_idle``
    is called when there begin to be idle connections, so that somebody calls ``close_old`` later.
    """

    def __init__(
        self,
        config: S3ClientConfig,
        when_wanted: Callable[[], None] = lambda: None,
        run: Run = lambda job: job(),
        when_idle: Callable[[], None] = lambda: None,
    ) -> None:
        self._config = config
        self._dialer = Dialer(config)
        self._when_wanted = when_wanted
        self._run = run
        self._when_idle = when_idle
        self._lock = threading.Lock()
        self._line = FairQueue()  # for room
        self._in_use = 0
        self._idle: dict[Connection, Address] = {}  # the one that was used last comes last
        self._open: set[Connection] = set()
        self._closed = False
        _descriptors.add_holder(self)

    @property
    def in_use(self) -> int:
        """How many connections are carrying requests."""
        return self._in_use

    @property
    def has_idle(self) -> bool:
        """Whether there are connections for ``close_old`` to close, now or later."""
        return bool(self._idle)

    @property
    def are_wanted(self) -> bool:
        """Whether somebody waits for a connection."""
        return bool(self._line)

    def acquire(self, address: Address, deadline: Deadline, *, fresh: bool = False) -> Connection:
        """A connection to ``address``, an idle one unless ``fresh``. Waits in line while all allowed ones are in use.

        Raises:
            PoolIsFull: they are, and ``deadline`` says not to wait.
            NoneIdle: ``deadline`` says not to open one if that takes long, and it does.
            S3ConnectionError, S3TimeoutError: it could not be opened, or none became free in time.
            CancelledByCaller: the token of ``deadline`` was cancelled while waiting.
        """
        has_place, ticket = False, None
        connection: Connection | None = None
        try:
            with self._lock:
                if self._in_use < self._config.max_connections:
                    self._in_use += 1
                    has_place = True
                elif deadline.wait:
                    ticket = self._line.join()
                else:
                    raise PoolIsFull("all connections are in use")
                if has_place and not fresh:
                    connection = self._pop_idle(address)
            if ticket is not None:
                connection = self._wait_in_line(ticket, deadline, None if fresh else address)
                has_place = True
            while connection is not None and not self._is_usable(connection):
                self._close(connection)
                with self._lock:
                    connection = self._pop_idle(address)
            connection = connection or self._open_one(address, deadline)
            connection.hurry(deadline)
            return connection
        except BaseException:  # also an interrupt
            if has_place:
                self._leave()
            if connection is not None:
                self._close(connection)
            raise

    def open_ahead(self, address: Address, deadline: Deadline) -> None:
        """Open a connection for whoever acquires one next. Raises what ``acquire`` does."""
        connection = self.acquire(address, deadline, fresh=True)
        connection.used = True  # if it breaks without an answer, it was closed as others are that were idle
        self.release(address, connection)

    def open_elsewhere(self, address: Address, deadline: Deadline) -> threading.Event:
        """Have another thread ``open_ahead``, unless all are in use; set when that is over, whatever became of it."""
        over = threading.Event()

        def open_one() -> None:
            with contextlib.suppress(Exception):  # nothing is lost: the one who asked waits for something else, too
                self.open_ahead(address, deadline._replace(wait=False, connect=True))
            over.set()

        try:
            self._run(open_one)
        except RuntimeError:  # closed, or no thread to be had
            over.set()
        return over

    def _wait_in_line(self, ticket: Waiter, deadline: Deadline, address: Address | None) -> Connection | None:
        """Wait for the place of another, and take its connection if it leads to ``address``."""
        try:
            self._when_wanted()
            ticket.wait(deadline)
            with self._lock:
                return None if address is None else self._pop_idle(address)
        except BaseException as error:
            with self._lock:
                if self._line.leave(ticket):
                    self._make_room()
            if isinstance(error, S3TimeoutError):
                raise S3TimeoutError(
                    f"all of max_connections={self._config.max_connections} connections were in use until its time "
                    "was over"
                ) from error
            raise

    def release(self, address: Address, connection: Connection) -> None:
        """Give back a connection that can serve another request."""
        if not connection.used:
            self._dialer.learn(address, connection)
        connection.used = True
        connection.idle_since = now = time.monotonic()
        old: list[Connection] = []
        with self._lock:
            keep = not self._closed
            is_first = keep and not self._idle
            if keep:
                self._idle[connection] = address
                if now - next(iter(self._idle)).idle_since >= _DROP_AFTER:
                    old = self._take_out_old(now)
            self._make_room()
        if not keep:
            self._close(connection)
        if is_first:
            self._when_idle()
        _close_all(old)

    def discard(self, connection: Connection) -> None:
        """Close a connection that was in use."""
        self._leave()
        self._close(connection)

    def close(self) -> None:
        """Close idle connections now, and those in use when they come back."""
        self._closed = True
        self.close_idle()

    def close_idle(self) -> None:
        """Close all connections that are not in use."""
        with self._lock:
            idle = self._take_out(len(self._idle))
        _close_all(idle)

    def close_old(self) -> None:
        """Close the connections that have been idle for so long that the server has closed them, or soon will."""
        with self._lock:
            old = self._take_out_old(time.monotonic())
        _close_all(old)

    def forget(self) -> None:
        """In a forked child: its sockets are closed already (``_sockets``). Takes no lock: the parent may hold it."""
        self._open.clear()
        self._idle.clear()

    def _leave(self) -> None:
        with self._lock:
            self._make_room()

    def _make_room(self) -> None:
        """Under the lock: the place goes to who waits longest, if anybody does."""
        if not self._line.admit():
            self._in_use -= 1

    def _pop_idle(self, address: Address) -> Connection | None:
        """Under the lock: the connection that was used last, if there is one."""
        for connection, leads_to in reversed(self._idle.items()):
            if leads_to is address or leads_to == address:
                del self._idle[connection]  # an interrupt behind ``pop`` would lose it, open
                return connection
        return None

    def _take_out(self, count: int) -> list[Connection]:
        """Under the lock: so many of those that are idle longest, for the caller to close."""
        chosen = list(itertools.islice(self._idle, max(0, count)))
        for connection in chosen:
            self._open.discard(connection)  # first: if an interrupt comes before it is closed, nothing holds it open
            del self._idle[connection]
        return chosen

    def _take_out_old(self, now: float) -> list[Connection]:
        """Under the lock: those that have been idle for too long, for the caller to close."""
        recent = (number for number, each in enumerate(self._idle) if now - each.idle_since < _DROP_AFTER)
        return self._take_out(next(recent, len(self._idle)))

    def _is_usable(self, connection: Connection) -> bool:
        # However short its rest: bytes that nobody asked for would be taken for the next response.
        return time.monotonic() - connection.idle_since < _DROP_AFTER and connection.looks_alive()

    def _close(self, connection: Connection) -> None:
        with self._lock:
            self._open.discard(connection)
        connection.close()

    def _open_one(self, address: Address, deadline: Deadline) -> Connection:
        with self._lock:
            surplus = self._take_out(self._in_use + len(self._idle) - self._config.max_connections)
        _close_all(surplus)
        connection = _descriptors.have(lambda: self._dialer.open(address, deadline), f"no connection to {address}")
        with self._lock:
            self._open.add(connection)
        return connection


def _close_all(connections: list[Connection]) -> None:
    for connection in connections:
        with contextlib.suppress(OSError):  # closed all the same
            connection.close()
