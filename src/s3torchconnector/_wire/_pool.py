"""Open connections of one client in one process: handed out last-in first-out, one to a thread at a time.

Who acquires a connection gives it back with ``release`` (it can serve another request) or ``discard``. What to do is
decided under the lock; connecting (``_dialer``) and closing happen outside it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3Exception, S3TimeoutError
from s3torchconnector._wire._connection import Connection
from s3torchconnector._wire._dialer import Address, Dialer
from s3torchconnector._wire._line import Line, Ticket
from s3torchconnector._wire._patience import Patience

_DROP_AFTER = 20.0  # seconds idle after which it is not worth a look: S3 closes idle connections

Run = Callable[[Callable[[], None]], object]


class PoolIsFull(S3Exception):
    """As many connections are in use as may be. Never reaches users."""


class ConnectionPool:
    """Connections by address, at most ``config.max_connections`` in use at a time.

    ``when_wanted`` is called when somebody begins to wait for one. ``run`` has a thread call something.
    """

    def __init__(
        self, config: S3ClientConfig, when_wanted: Callable[[], None] = lambda: None, run: Run = lambda job: job()
    ) -> None:
        self._config = config
        self._dialer = Dialer(config)
        self._when_wanted = when_wanted
        self._run = run
        self._lock = threading.Lock()
        self._line = Line()  # for room
        self._in_use = 0
        self._idle: dict[Address, list[Connection]] = {}
        self._open: set[Connection] = set()
        self._closed = False

    @property
    def in_use(self) -> int:
        """How many connections are carrying requests."""
        return self._in_use

    @property
    def are_wanted(self) -> bool:
        """Whether somebody waits for a connection."""
        return bool(self._line)

    def acquire(self, address: Address, patience: Patience, *, fresh: bool = False) -> Connection:
        """A connection to ``address``, an idle one unless ``fresh``. Waits in line while all allowed ones are in use.

        Raises:
            PoolIsFull: they are, and ``patience`` says not to wait.
            NoneIdle: ``patience`` says not to open one if that takes long, and it does.
            S3ConnectionError, S3TimeoutError: it could not be opened, or none became free in time.
            CancelledByCaller: the token of ``patience`` was cancelled while waiting.
        """
        has_place, ticket = False, None
        connection: Connection | None = None
        try:
            with self._lock:
                if self._in_use < self._config.max_connections:
                    self._in_use += 1
                    has_place = True
                elif patience.wait:
                    ticket = self._line.join()
                else:
                    raise PoolIsFull("all connections are in use")
                if has_place and not fresh:
                    connection = self._pop_idle(address)
            if ticket is not None:
                connection = self._wait_in_line(ticket, patience, None if fresh else address)
                has_place = True
            while connection is not None and not self._is_usable(connection):
                self._close(connection)
                with self._lock:
                    connection = self._pop_idle(address)
            connection = connection or self._open_one(address, patience)
            connection.hurry(patience)
            return connection
        except BaseException:  # also an interrupt
            if has_place:
                self._leave()
            if connection is not None:
                self._close(connection)
            raise

    def open_ahead(self, address: Address, patience: Patience) -> None:
        """Open a connection for whoever acquires one next. Raises what ``acquire`` does."""
        connection = self.acquire(address, patience, fresh=True)
        connection.used = True  # if it breaks without an answer, it was closed as others are that were idle
        self.release(address, connection)

    def open_elsewhere(self, address: Address, patience: Patience) -> threading.Event:
        """Have another thread ``open_ahead``, unless all are in use; set when that is over, whatever became of it."""
        over = threading.Event()

        def open_one() -> None:
            with contextlib.suppress(Exception):  # nothing is lost: the one who asked waits for something else, too
                self.open_ahead(address, patience._replace(wait=False, connect=True))
            over.set()

        try:
            self._run(open_one)
        except RuntimeError:  # closed, or no thread to be had
            over.set()
        return over

    def _wait_in_line(self, ticket: Ticket, patience: Patience, address: Address | None) -> Connection | None:
        """Wait for the place of another, and take its connection if it leads to ``address``."""
        try:
            self._when_wanted()
            ticket.wait(patience)
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
        connection.idle_since = time.monotonic()
        with self._lock:
            keep = not self._closed
            if keep:
                self._idle.setdefault(address, []).append(connection)
            self._make_room()
        if not keep:
            self._close(connection)

    def discard(self, connection: Connection) -> None:
        """Close a connection that was in use."""
        self._leave()
        self._close(connection)

    def close(self) -> None:
        """Close idle connections now, and those in use when they come back."""
        with self._lock:
            self._closed = True
            idle = [connection for connections in self._idle.values() for connection in connections]
            self._idle.clear()
        for connection in idle:
            self._close(connection)

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
        connections = self._idle.get(address)
        if not connections:
            return None
        connection = connections[-1]
        del connections[-1]  # an interrupt behind ``pop`` would lose it, open
        return connection

    def _is_usable(self, connection: Connection) -> bool:
        # However short its rest: bytes that nobody asked for would be taken for the next response.
        return time.monotonic() - connection.idle_since < _DROP_AFTER and connection.looks_alive()

    def _close(self, connection: Connection) -> None:
        with self._lock:
            self._open.discard(connection)
        connection.close()

    def _open_one(self, address: Address, patience: Patience) -> Connection:
        connection = self._dialer.open(address, patience)
        with self._lock:
            self._open.add(connection)
        return connection
