"""Open connections: each serves one thread at a time, and the one used last is used next.

A thread that acquires a connection gives it back by ``release`` (it can serve another request) or ``discard``.
Decisions are made under the lock; connections are opened (``_dialer``) and closed outside it.

Each connection in use takes one of ``max_connections`` permits, from before it is opened until it is given back. If all
are taken, threads wait in a fair queue. Idle connections take no permit. They are closed when they are too old, when
the process has no descriptor left (``_descriptors``), and, the oldest first, when a new connection would exceed
``max_connections``.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable

from s3torchconnector._activity import activity
from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3Exception, S3TimeoutError
from s3torchconnector._wire import _descriptors
from s3torchconnector._wire._connection import Connection
from s3torchconnector._wire._deadline import Deadline
from s3torchconnector._wire._dialer import Dialer, Route
from s3torchconnector._wire._fair_queue import FairQueue, Waiter

_MAX_IDLE_SECONDS = 20.0  # after which a connection is not even checked: S3 closes idle connections

RunJob = Callable[[Callable[[], None]], object]


class PoolIsFull(S3Exception):
    """All ``max_connections`` connections are in use, and the caller must not wait. Never reaches users."""


class ConnectionPool:
    """At most ``config.max_connections`` connections, those in use and idle ones together. Thread-safe.

    Args:
        config: the timeouts and the limit.
        when_wanted: called when a thread begins to wait for a connection.
        run: runs a job on another thread.
        when_idle: called when the first connection becomes idle, so that somebody calls ``close_old`` later.
    """

    def __init__(
        self,
        config: S3ClientConfig,
        when_wanted: Callable[[], None] = lambda: None,
        run: RunJob = lambda job: job(),
        when_idle: Callable[[], None] = lambda: None,
    ) -> None:
        self._config = config
        self._dialer = Dialer(config)
        self._when_wanted = when_wanted
        self._run = run
        self._when_idle = when_idle
        self._lock = threading.Lock()
        self._queue = FairQueue()  # for permits
        self._in_use = 0  # permits that are taken
        self._idle: dict[Connection, Route] = {}  # in the order of their last use
        self._open: set[Connection] = set()
        self._closed = False
        _descriptors.register(self)

    def __repr__(self) -> str:
        # Without the lock, which a stalled thread might hold: the figures may be of slightly different moments.
        in_use, idle = self._in_use, len(self._idle)
        opening = max(0, in_use + idle - len(self._open))
        return (
            f"<ConnectionPool [{max(0, in_use - opening)} active, {opening} opening, {idle} idle, "
            f"{len(self._queue)} waiting, max {self._config.max_connections}{', closed' if self._closed else ''}]>"
        )

    @property
    def in_use(self) -> int:
        """How many connections are in use, including those that are being opened."""
        return self._in_use

    @property
    def idle(self) -> int:
        """How many connections are open and not in use."""
        return len(self._idle)

    @property
    def has_idle(self) -> bool:
        """Whether there are connections that ``close_old`` will close, now or later."""
        return bool(self._idle)

    @property
    def are_wanted(self) -> bool:
        """Whether a thread waits for a connection."""
        return bool(self._queue)

    def acquire(self, route: Route, deadline: Deadline, *, fresh: bool = False) -> Connection:
        """A connection to ``route``: an idle one, if there is one and not ``fresh``. Waits while all permits are taken.

        Raises:
            PoolIsFull: all permits are taken, and ``deadline`` says not to wait.
            NoIdleConnection: a connection would take long to open, and ``deadline`` says not to.
            S3ConnectionError, S3TimeoutError: it could not be opened, or no permit became free in time.
            CancelledByCaller: the token of ``deadline`` was cancelled.
        """
        has_permit, waiter = False, None
        connection: Connection | None = None
        try:
            with self._lock:
                if self._in_use < self._config.max_connections:
                    self._in_use += 1
                    has_permit = True
                elif deadline.wait:
                    waiter = self._queue.join()
                else:
                    raise PoolIsFull("all connections are in use")
                if has_permit and not fresh:
                    connection = self._pop_idle(route)
            if waiter is not None:
                connection = self._wait_for_permit(waiter, deadline, None if fresh else route)
                has_permit = True
            while connection is not None and not self._is_usable(connection):
                self._close(connection)
                with self._lock:
                    connection = self._pop_idle(route)
            connection = connection or self._open_one(route, deadline)
            connection.set_deadline(deadline)
            return connection
        except BaseException:  # also an interrupt
            if has_permit:
                self._release_permit()
            if connection is not None:
                self._close(connection)
            raise

    def open_ahead(self, route: Route, deadline: Deadline) -> None:
        """Open a connection that the next ``acquire`` will find. Raises what ``acquire`` raises."""
        connection = self.acquire(route, deadline, fresh=True)
        connection.used = True  # if it breaks without a response, the server closed it while it was idle
        self.release(route, connection)

    def open_in_background(self, route: Route, deadline: Deadline) -> threading.Event:
        """Have another thread call ``open_ahead``; the event is set when that has succeeded or failed."""
        done = threading.Event()

        def open_one() -> None:
            with contextlib.suppress(Exception):  # the caller does not depend on it: it waits for something else, too
                self.open_ahead(route, deadline._replace(wait=False, connect=True))
            done.set()

        try:
            self._run(open_one)
        except RuntimeError:  # closed, or no thread can be started
            done.set()
        return done

    @activity("waits for a connection, since max_connections are in use")
    def _wait_for_permit(self, waiter: Waiter, deadline: Deadline, route: Route | None) -> Connection | None:
        """Wait for a permit. Returns an idle connection to ``route``, which its last user may just have released."""
        try:
            self._when_wanted()
            waiter.wait(deadline)
            with self._lock:
                return None if route is None else self._pop_idle(route)
        except BaseException as error:
            with self._lock:
                if self._queue.leave(waiter):
                    self._pass_permit_on()
            if isinstance(error, S3TimeoutError):
                raise S3TimeoutError(
                    f"all max_connections={self._config.max_connections} connections were in use until the deadline"
                ) from error
            raise

    def release(self, route: Route, connection: Connection) -> None:
        """Give a connection back that can serve another request."""
        if not connection.used:
            self._dialer.remember_tls_session(route, connection)
        connection.used = True
        connection.idle_since = now = time.monotonic()
        old: list[Connection] = []
        with self._lock:
            keep = not self._closed
            is_first = keep and not self._idle
            if keep:
                self._idle[connection] = route
                if now - next(iter(self._idle)).idle_since >= _MAX_IDLE_SECONDS:
                    old = self._take_out_old(now)
            self._pass_permit_on()
        if not keep:
            self._close(connection)
        if is_first:
            self._when_idle()
        if old:
            _close_all(old)

    def discard(self, connection: Connection) -> None:
        """Give a connection back that cannot serve another request: it is closed."""
        self._release_permit()
        self._close(connection)

    def close(self) -> None:
        """Close idle connections now, and those in use when they are given back."""
        self._closed = True
        self.close_idle()

    def close_idle(self) -> None:
        """Close all connections that are not in use."""
        with self._lock:
            idle = self._take_out(len(self._idle))
        _close_all(idle)

    def close_old(self) -> None:
        """Close the connections that have been idle so long that the server has closed them or soon will."""
        with self._lock:
            old = self._take_out_old(time.monotonic())
        _close_all(old)

    def forget(self) -> None:
        """In a forked child, where ``_sockets`` has closed the sockets: drop the connections, without the lock, which
        another thread of the parent may have held."""
        self._open.clear()
        self._idle.clear()

    def _release_permit(self) -> None:
        with self._lock:
            self._pass_permit_on()

    def _pass_permit_on(self) -> None:
        """Under the lock: give the permit to the thread that has waited longest, if any waits."""
        if not self._queue.admit():
            self._in_use -= 1

    def _pop_idle(self, route: Route) -> Connection | None:
        """Under the lock: take the idle connection to ``route`` that was used last, if there is one."""
        for connection, its_route in reversed(self._idle.items()):
            if its_route is route or its_route == route:
                del self._idle[connection]  # not ``pop``: an interrupt after it would lose the connection, still open
                return connection
        return None

    def _take_out(self, count: int) -> list[Connection]:
        """Under the lock: take the ``count`` connections that have been idle longest, for the caller to close."""
        chosen = list(itertools.islice(self._idle, max(0, count)))
        for connection in chosen:
            self._open.discard(connection)  # first: then an interrupt leaves no reference that keeps it open
            del self._idle[connection]
        return chosen

    def _take_out_old(self, now: float) -> list[Connection]:
        """Under the lock: take the connections that have been idle too long, for the caller to close."""
        recent = (number for number, each in enumerate(self._idle) if now - each.idle_since < _MAX_IDLE_SECONDS)
        return self._take_out(next(recent, len(self._idle)))

    def _is_usable(self, connection: Connection) -> bool:
        # However briefly it was idle: stray bytes would be taken for the next response.
        return time.monotonic() - connection.idle_since < _MAX_IDLE_SECONDS and connection.looks_alive()

    def _close(self, connection: Connection) -> None:
        with self._lock:
            self._open.discard(connection)
        connection.close()

    def _open_one(self, route: Route, deadline: Deadline) -> Connection:
        with self._lock:
            surplus = self._take_out(self._in_use + len(self._idle) - self._config.max_connections)
        _close_all(surplus)
        connection = _descriptors.open_descriptors(
            lambda: self._dialer.open(route, deadline), f"cannot connect to {route}"
        )
        with self._lock:
            self._open.add(connection)
        return connection


def _close_all(connections: list[Connection]) -> None:
    for connection in connections:
        with contextlib.suppress(OSError):  # it is closed anyway
            connection.close()
