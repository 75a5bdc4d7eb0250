"""How connections are opened: directly or through a proxy, with TLS or without."""

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from s3torchconnector._activity import activity
from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3ConfigurationError, S3ConnectionError, S3Exception, S3TimeoutError
from s3torchconnector._late_imports import no_fork
from s3torchconnector._wire import _descriptors
from s3torchconnector._wire._connection import Connection
from s3torchconnector._wire._deadline import Deadline
from s3torchconnector._wire._proxy import Proxy, open_tunnel
from s3torchconnector._wire._sockets import AddressInfo, TlsSocket, connect

# Seconds. A connection that opens this quickly costs less than having another thread open it. A thread that must not
# wait for a connection tries no longer than briefly.
_QUICK, _BRIEFLY = 1e-3, 10e-3
_log = logging.getLogger(__name__)


class Route(NamedTuple):
    """Where a connection leads, and the proxy on the way."""

    scheme: str
    host: str
    port: int
    proxy: Proxy | None = None

    def __str__(self) -> str:
        text = f"{self.scheme}://{self.host}:{self.port}"
        return f"{text} (through the proxy {self.proxy.host}:{self.proxy.port})" if self.proxy else text


class NoIdleConnection(S3Exception):
    """A connection has to be opened, which takes long, and the caller must not wait. Never reaches users."""


class Dialer:
    """Opens connections, and remembers for each route what speeds up the next one. Thread-safe."""

    def __init__(self, config: S3ClientConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._tls: dict[str | None, ssl.SSLContext] = {}  # by the bundle of certificates that the configuration names
        self._tls_sessions: dict[Route, ssl.SSLSession] = {}  # resumed handshakes skip the certificate check
        self._slow: set[Route] = set()  # whose last connection took long to open, or did not open

    @activity("opens a connection to {}", "route")
    def open(self, route: Route, deadline: Deadline) -> Connection:
        """Open a connection, within ``connect_timeout`` and the time that ``deadline`` leaves.

        Raises:
            NoIdleConnection: it would take long, and ``deadline`` says not to wait for that.
            S3ConnectionError, S3TimeoutError, S3ConfigurationError: it could not be opened.
            CancelledByCaller: the token of ``deadline`` was cancelled.
        """
        if not deadline.connect and route in self._slow:
            raise NoIdleConnection("a connection has to be opened")
        started = time.perf_counter()
        slow = True
        try:
            connection = self._connect(route, deadline)
            slow = time.perf_counter() - started > _QUICK
        except S3TimeoutError as error:
            if not deadline.connect:
                raise NoIdleConnection("a connection has to be opened") from error
            raise
        finally:
            (self._slow.add if slow else self._slow.discard)(route)
        return connection

    def remember_tls_session(self, route: Route, connection: Connection) -> None:
        """Let later connections resume the TLS session of one that has received its first response."""
        if (session := connection.tls_session) is not None:
            self._tls_sessions[route] = session

    def _connect(self, route: Route, deadline: Deadline) -> Connection:
        deadline.check()
        addresses = look_up(route)
        deadline.check()
        longest = self._config.connect_timeout if deadline.connect else _BRIEFLY
        end = time.perf_counter() + min(longest, deadline.left())
        try:
            sock = connect(addresses, end)
        except TimeoutError as error:
            raise S3TimeoutError(
                f"cannot connect to {route} within connect_timeout={self._config.connect_timeout:g} s"
            ) from error
        except OSError as error:
            raise _unreachable(route, error) from error
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            proxy, left = route.proxy, partial(_until, end)
            if proxy is not None and proxy.scheme == "https":
                sock = self._shake_hands_with_proxy(sock, route, proxy, left)
            elif proxy is not None and not proxy.speaks_http:
                with no_fork:
                    from s3torchconnector._wire._socks import open_socks  # here: few clients have such a proxy

                open_socks(sock, proxy, route.host, route.port, left)
            if route.scheme == "https":
                if proxy is not None and proxy.speaks_http:
                    open_tunnel(sock, proxy, route.host, route.port, left)
                return self._shake_hands_with_endpoint(sock, route, left)
            if isinstance(sock, ssl.SSLSocket):
                return self._encrypted(sock, route)
            return Connection(sock, self._config.read_timeout, str(route))
        except BaseException:
            sock.close()
            raise

    def _shake_hands_with_endpoint(self, sock: socket.socket, route: Route, left: Callable[[], float]) -> Connection:
        with self._explained(str(route), "endpoint", "set AWS_CA_BUNDLE"):
            context, session = self._tls_context(None), self._tls_sessions.get(route)
            if isinstance(sock, ssl.SSLSocket):
                with no_fork:
                    from s3torchconnector._wire._tls_in_tls import InnerTls, TlsInTlsConnection

                inner = InnerTls(sock, context, route.host, session, left)
                return TlsInTlsConnection(inner, self._config.read_timeout, str(route))
            sock.settimeout(left())
            tls = context.wrap_socket(sock, server_hostname=route.host, session=session)
            return self._encrypted(tls, route)

    def _shake_hands_with_proxy(
        self, sock: socket.socket, route: Route, proxy: Proxy, left: Callable[[], float]
    ) -> ssl.SSLSocket:
        advice = "set proxy_ca_bundle in S3ClientConfig, or AWS_CA_BUNDLE,"
        with self._explained(f"the proxy {proxy.host}:{proxy.port}", "proxy", advice):
            context = self._tls_context(self._config.proxy_ca_bundle)
            session = self._tls_sessions.get(route) if route.scheme == "http" else None  # else it is the endpoint's
            sock.settimeout(left())
            return context.wrap_socket(sock, server_hostname=proxy.host, session=session)

    def _encrypted(self, sock: ssl.SSLSocket, route: Route) -> Connection:
        with no_fork:
            from s3torchconnector._wire._tls_connection import TlsConnection  # here: plain HTTP needs none

        return TlsConnection(sock, self._config.read_timeout, str(route))

    @contextmanager
    def _explained(self, name: str, what: str, advice: str) -> Iterator[None]:
        """Raise errors of a TLS handshake as ours."""
        try:
            yield
        except ssl.SSLCertVerificationError as error:
            raise S3ConfigurationError(
                f"the certificate of {name} cannot be trusted: {error.verify_message}. If the {what} uses a "
                f"private CA, {advice} to the path of the CA's certificate"
            ) from error
        except TimeoutError as error:
            raise S3TimeoutError(
                f"no TLS handshake with {name} within connect_timeout={self._config.connect_timeout:g} s. "
                f"Does the {what} speak TLS?"
            ) from error
        except OSError as error:
            raise S3ConnectionError(
                f"the TLS handshake with {name} failed: {error}. Does the {what} speak TLS?"
            ) from error

    def _tls_context(self, bundle: str | None) -> ssl.SSLContext:
        with self._lock:
            if bundle not in self._tls:
                self._tls[bundle] = _new_tls_context(self._config, bundle)
            return self._tls[bundle]


def look_up(route: Route) -> list[AddressInfo]:
    """The IP addresses of the server, or of its proxy."""
    target = route.proxy or route
    # The host as bytes: for a str, Python would import the IDNA codec, which takes milliseconds.
    host = target.host.encode() if target.host.isascii() else target.host
    try:
        return list(socket.getaddrinfo(host, target.port, 0, socket.SOCK_STREAM))
    except OSError as error:
        raise _unreachable(route, error) from error


def _unreachable(route: Route, error: OSError) -> S3ConnectionError:
    return S3ConnectionError(f"cannot connect to {route}: {error}. Is the endpoint right, and is the server up?")


def _until(end: float) -> float:
    """Seconds until ``end``, as a socket's timeout.

    Raises:
        TimeoutError: none are left. (A socket would take 0 for non-blocking mode.)
    """
    if (left := end - time.perf_counter()) <= 0:
        raise TimeoutError("timed out")
    return left


def _new_tls_context(config: S3ClientConfig, path: str | None) -> ssl.SSLContext:
    """A context that trusts the CAs in the file at ``path``; None: those that botocore would, or the system's."""
    with no_fork:
        from s3torchconnector._identity import Bundle, ca_bundle  # here, for the same reason

    bundle = ca_bundle(config.profile) if path is None else Bundle(path, "proxy_ca_bundle")
    try:
        _descriptors.check_descriptors()  # OpenSSL ignores a trust store that it cannot open
        context = ssl.create_default_context(cafile=bundle.path if bundle else None)
    except OSError as error:
        named = f"{bundle.source}={bundle.path}" if bundle else "the system's trust store"
        raise S3ConfigurationError(f"{named} cannot be read: {error}. Set it to a file of PEM certificates") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = TlsSocket
    if not config.verify_tls:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        _log.warning("verify_tls=False: anyone who intercepts the connection can read and change the data")
    return context
