"""How one client opens connections: to the endpoint or through a proxy, with TLS or without."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from typing import NamedTuple

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3ConfigurationError, S3ConnectionError, S3Exception, S3TimeoutError
from s3torchconnector._wire import _descriptors
from s3torchconnector._wire._connection import Connection
from s3torchconnector._wire._deadline import Deadline
from s3torchconnector._wire._proxy import Proxy, open_tunnel
from s3torchconnector._wire._sockets import AddressInfo, TlsSocket, connect
from s3torchconnector._wire._tls_connection import TlsConnection

# Seconds. A connection that opens in so much time costs less than to have another thread open it; and who must not wait
# for one tries no longer than briefly.
_QUICK, _BRIEFLY = 1e-3, 10e-3


class Address(NamedTuple):
    """Where a connection leads."""

    scheme: str
    host: str
    port: int
    proxy: Proxy | None = None

    def __str__(self) -> str:
        text = f"{self.scheme}://{self.host}:{self.port}"
        return f"{text} (through the proxy {self.proxy.host}:{self.proxy.port})" if self.proxy else text


class NoIdleConnection(S3Exception):
    """A connection has to be opened, which takes long. Never reaches users."""


class Dialer:
    """Opens connections, and remembers of each address what helps with the next one. For any threads."""

    def __init__(self, config: S3ClientConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._tls: ssl.SSLContext | None = None
        self._tls_sessions: dict[Address, ssl.SSLSession] = {}  # a resumed handshake checks no certificate again
        self._slow: set[Address] = set()  # where the last connection took long to open, or did not open

    def open(self, address: Address, deadline: Deadline) -> Connection:
        """A new connection, within ``connect_timeout`` and the time that ``deadline`` leaves.

        Raises:
            NoneIdle: ``deadline`` says not to open one if that takes long, and it does.
            S3ConnectionError, S3TimeoutError, S3ConfigurationError: it could not be opened.
            CancelledByCaller: the token of ``deadline`` was cancelled before.
        """
        if not deadline.connect and address in self._slow:
            raise NoIdleConnection("a connection has to be opened")
        began = time.perf_counter()
        slow = True
        try:
            connection = self._connect(address, deadline)
            slow = time.perf_counter() - began > _QUICK
        except S3TimeoutError as error:
            if not deadline.connect:
                raise NoIdleConnection("a connection has to be opened") from error
            raise
        finally:
            (self._slow.add if slow else self._slow.discard)(address)
        return connection

    def learn(self, address: Address, connection: Connection) -> None:
        """A connection has served for the first time: others may resume its TLS session."""
        if (session := connection.tls_session) is not None:
            self._tls_sessions[address] = session

    def _connect(self, address: Address, deadline: Deadline) -> Connection:
        deadline.check()
        addresses = _look_up(address)
        deadline.check()
        longest = self._config.connect_timeout if deadline.connect else _BRIEFLY
        end = time.perf_counter() + min(longest, deadline.left())
        try:
            sock = connect(addresses, end)
        except TimeoutError as error:
            raise S3TimeoutError(
                f"no connection to {address} within connect_timeout={self._config.connect_timeout:g} s"
            ) from error
        except OSError as error:
            raise _unreachable(address, error) from error
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if address.scheme != "https":
                return Connection(sock, self._config.read_timeout, str(address))
            if address.proxy is not None:
                open_tunnel(sock, address.proxy, address.host, address.port, lambda: _until(end))
            sock = tls = self._shake_hands(sock, address, end)
            return TlsConnection(tls, self._config.read_timeout, str(address))
        except BaseException:
            sock.close()
            raise

    def _shake_hands(self, sock: socket.socket, address: Address, end: float) -> ssl.SSLSocket:
        try:
            session = self._tls_sessions.get(address)
            context = self._tls_context()
            sock.settimeout(_until(end))
            return context.wrap_socket(sock, server_hostname=address.host, session=session)
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


def _look_up(address: Address) -> list[AddressInfo]:
    """The addresses that the name of a server stands for, or that of its proxy."""
    target = address.proxy or address
    # A host as bytes: a text brings in the IDNA codec, which takes milliseconds.
    host = target.host.encode() if target.host.isascii() else target.host
    try:
        return list(socket.getaddrinfo(host, target.port, 0, socket.SOCK_STREAM))
    except OSError as error:
        raise _unreachable(address, error) from error


def _unreachable(address: Address, error: OSError) -> S3ConnectionError:
    return S3ConnectionError(f"no connection to {address}: {error}: is the endpoint right and up?")


def _until(end: float) -> float:
    """Seconds to wait for a socket.

    Raises:
        TimeoutError: there are none; a socket takes 0 for "do not wait".
    """
    if (left := end - time.perf_counter()) <= 0:
        raise TimeoutError("timed out")
    return left


def _default_tls_context() -> ssl.SSLContext:
    """The system's trust store, or the bundle in ``AWS_CA_BUNDLE``, botocore's name for it."""
    bundle = os.environ.get("AWS_CA_BUNDLE")
    try:
        _descriptors.open_one()  # OpenSSL does not say that it could not open the system's trust store
        context = ssl.create_default_context(cafile=bundle or None)
    except OSError as error:
        raise S3ConfigurationError(f"the CA bundle AWS_CA_BUNDLE={bundle} cannot be read: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = TlsSocket
    return context
