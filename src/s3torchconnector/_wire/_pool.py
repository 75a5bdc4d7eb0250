"""Open connections of one client in one process: handed out last-in first-out, one to a thread at a time.

Who acquires a connection gives it back with ``release`` (it can serve another request) or ``discard``. What to do is
decided under the lock; connecting and closing happen outside it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, cast

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3ConfigurationError, S3ConnectionError, S3Exception, S3TimeoutError
from s3torchconnector._wire._connection import Connection
from s3torchconnector._wire._line import Line, Ticket
from s3torchconnector._wire._patience import Patience
from s3torchconnector._wire._proxy import Proxy, open_tunnel
from s3torchconnector._wire._tls_connection import TlsConnection

_CHECK_AFTER = 1.0  # seconds idle after which a look tells whether the server closed it
_DROP_AFTER = 20.0  # seconds idle after which it is not worth a look: S3 closes idle connections
# Seconds. A connection that opens in so much time costs less than to have another thread open it; and who must not wait
# for one tries no longer than briefly.
_QUICK, _BRIEFLY = 1e-3, 10e-3


Run = Callable[[Callable[[], None]], object]


class Address(NamedTuple):
    """Where a connection leads."""

    scheme: str
    host: str
    port: int
    proxy: Proxy | None = None

    def __str__(self) -> str:
        text = f"{self.scheme}://{self.host}:{self.port}"
        return f"{text} (through the proxy {self.proxy.host}:{self.proxy.port})" if self.proxy else text


class PoolIsFull(S3Exception):
    """As many connections are in use as may be. Never reaches users."""


class NoneIdle(S3Exception):
    """A connection has to be opened, which takes long. Never reaches users."""


class ConnectionPool:
    """Connections by address, at most ``config.max_connections`` in use at a time.

    ``when_wanted`` is called when somebody begins to wait for one. ``run`` has a thread call something.
    """

    def __init__(
        self, config: S3ClientConfig, when_wanted: Callable[[], None] = lambda: None, run: Run = lambda job: job()
    ) -> None:
        self._config = config
        self._when_wanted = when_wanted
        self._run = run
        self._lock = threading.Lock()
        self._line = Line()  # for room
        self._in_use = 0
        self._idle: dict[Address, list[Connection]] = {}
        self._open: set[Connection] = set()
        self._tls: ssl.SSLContext | None = None
        self._tls_sessions: dict[Address, ssl.SSLSession] = {}  # a resumed handshake checks no certificate again
        self._slow: set[Address] = set()  # where the last connection took long to open, or did not open
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
        if not connection.used and (session := connection.tls_session) is not None:
            self._tls_sessions[address] = session
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
        """In a forked child: close our copies of the parent's sockets. Takes no lock, for the parent may hold it."""
        for connection in list(self._open):
            connection.close()
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
        idle = time.monotonic() - connection.idle_since
        return idle < _CHECK_AFTER or (idle < _DROP_AFTER and connection.looks_alive())

    def _close(self, connection: Connection) -> None:
        with self._lock:
            self._open.discard(connection)
        connection.close()

    def _open_one(self, address: Address, patience: Patience) -> Connection:
        if not patience.connect and address in self._slow:
            raise NoneIdle("a connection has to be opened")
        began = time.perf_counter()
        slow = True
        try:
            connection = self._connect(address, patience)
            slow = time.perf_counter() - began > _QUICK
        except S3TimeoutError as error:
            if not patience.connect:
                raise NoneIdle("a connection has to be opened") from error
            raise
        finally:
            (self._slow.add if slow else self._slow.discard)(address)
        return connection

    def _connect(self, address: Address, patience: Patience) -> Connection:
        target = address.proxy or address
        patience.check()
        longest = self._config.connect_timeout if patience.connect else _BRIEFLY
        end = time.perf_counter() + min(longest, patience.left())
        try:
            sock = socket.create_connection((_encoded(target.host), target.port), _until(end))
        except TimeoutError as error:
            raise S3TimeoutError(
                f"no connection to {address} within connect_timeout={self._config.connect_timeout:g} s"
            ) from error
        except OSError as error:
            raise S3ConnectionError(f"no connection to {address}: {error}: is the endpoint right and up?") from error
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if address.scheme == "https":
                if address.proxy is not None:
                    open_tunnel(sock, address.proxy, address.host, address.port, lambda: _until(end))
                sock.settimeout(_until(end))
                sock = self._wrap(sock, address)
            connected = TlsConnection if isinstance(sock, ssl.SSLSocket) else Connection
            connection = connected(sock, self._config.read_timeout, str(address))
        except BaseException:
            sock.close()
            raise
        with self._lock:
            self._open.add(connection)
        return connection

    def _wrap(self, sock: socket.socket, address: Address) -> ssl.SSLSocket:
        try:
            session = self._tls_sessions.get(address)
            return self._tls_context().wrap_socket(sock, server_hostname=address.host, session=session)
        except ssl.SSLCertVerificationError as error:
            raise S3ConfigurationError(
                f"the certificate of {address} cannot be trusted: {error.verify_message}. If the endpoint uses a "
                "private CA, name its certificate in AWS_CA_BUNDLE"
            ) from error
        except TimeoutError as error:
            raise S3TimeoutError(
                f"no TLS handshake with {address} within connect_timeout={self._config.connect_timeout:g} s"
            ) from error
        except OSError as error:
            raise S3ConnectionError(f"the TLS handshake with {address} failed: {error}") from error

    def _tls_context(self) -> ssl.SSLContext:
        with self._lock:
            if self._tls is None:
                self._tls = _default_tls_context()
            return self._tls


def _encoded(host: str) -> str:
    """A host as bytes, which ``create_connection`` takes as well: a text brings in the IDNA codec, milliseconds."""
    return cast(str, host.encode()) if host.isascii() else host


def _until(end: float) -> float:
    """Seconds; at least one millisecond, since a socket takes 0 for "do not wait"."""
    return max(0.001, end - time.perf_counter())


def _default_tls_context() -> ssl.SSLContext:
    """The system's trust store, or the bundle in ``AWS_CA_BUNDLE``, botocore's name for it."""
    bundle = os.environ.get("AWS_CA_BUNDLE")
    try:
        context = ssl.create_default_context(cafile=bundle or None)
    except OSError as error:
        raise S3ConfigurationError(f"the CA bundle AWS_CA_BUNDLE={bundle} cannot be read: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
