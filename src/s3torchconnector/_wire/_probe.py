"""Connects to a bucket in single steps, so that a person can see which of them fails.

The steps are those of every request (``Caller``, ``Dialer``), without any state between them. ``ask`` sends one request
in the usual way, and returns refusals unchanged: it follows, renews and corrects nothing after them.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import closing
from typing import NamedTuple

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3ServiceError
from s3torchconnector._identity import Endpoint, FoundCredentials
from s3torchconnector._wire._caller import Caller
from s3torchconnector._wire._cancel import CancelToken
from s3torchconnector._wire._deadline import Deadline
from s3torchconnector._wire._dialer import Dialer, Route, look_up
from s3torchconnector._wire._documents import DOCUMENT_LIMIT, ErrorDocument, parse_error, parse_http_date
from s3torchconnector._wire._operations import Request, without_asking
from s3torchconnector._wire._proxy import proxy_for
from s3torchconnector._wire._regions import Regions
from s3torchconnector._wire._response import Response
from s3torchconnector._wire._service_errors import ADVICE, CREDENTIAL_CODES, EXPIRED_CODES, REGION_CODES
from s3torchconnector._wire._sockets import AddressInfo, connect
from s3torchconnector._wire._tls_connection import Handshake, TlsConnection

__all__ = [
    "ADVICE",
    "CREDENTIAL_CODES",
    "EXPIRED_CODES",
    "REGION_CODES",
    "Handshake",
    "Reply",
    "Route",
    "ask",
    "endpoint_of",
    "find_credentials",
    "look_up",
    "open_connection",
    "parse_error",
    "reach",
    "route_to",
    "speaks_http",
    "speaks_tls",
]

# Refusals that are returned. Not 407, which is the proxy's; nor 429 and 5xx, which may pass, but for 501.
_REFUSALS = (*(status for status in range(300, 500) if status not in (407, 429)), 501)


class Reply(NamedTuple):
    """A response, good or not. ``document`` is S3's description of the error; None if the body is not S3's.

    Attributes:
        operation: what was refused: CreateSession, maybe, instead of what was asked for.
        seconds: from the request to the end of the response.
    """

    operation: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    document: ErrorDocument | None
    seconds: float

    @property
    def is_good(self) -> bool:
        """Whether the request succeeded."""
        return self.status < 300

    @property
    def code(self) -> str:
        """S3's error code; empty if there is none."""
        return self.document.code if self.document else ""

    @property
    def server_time(self) -> float | None:
        """The server's clock, in seconds since 1970."""
        return parse_http_date(self.headers.get("date", "")) or None

    def __str__(self) -> str:
        message = self.document.message if self.document else ""
        facts = " ".join(filter(None, [f"{self.operation}: HTTP {self.status}", self.code]))
        return f"{facts}: {message}" if message else facts


def endpoint_of(bucket: str, region: str, endpoint: str | None, config: S3ClientConfig) -> Endpoint:
    """Where requests for a bucket go at first.

    Raises:
        S3ConfigurationError: there is no such endpoint.
    """
    return Regions(region, endpoint, config).endpoint(bucket)


def route_to(endpoint: Endpoint) -> Route:
    """How a connection gets there.

    Raises:
        S3ConfigurationError: the environment names a proxy that cannot be used.
    """
    way = (endpoint.scheme, endpoint.host, endpoint.port)
    return Route(*way, proxy_for(*way))


def find_credentials(caller: Caller, seconds: float) -> FoundCredentials | None:
    """The caller's credentials, looked up if need be; None if it signs nothing.

    Raises:
        S3CredentialsError: there are none.
        S3TimeoutError: they were not found in time.
    """
    return caller._authenticator.find(_deadline(seconds))


def reach(addresses: list[AddressInfo], seconds: float) -> None:
    """Connect to one of the addresses, and hang up.

    Raises:
        TimeoutError: none responded.
        OSError: all refused.
    """
    connect(addresses, time.perf_counter() + seconds).close()


def open_connection(config: S3ClientConfig, route: Route) -> Handshake | None:
    """Open a connection as for a request, through the proxy, with TLS if the endpoint has it, and close it.

    Raises:
        S3Exception: it could not be opened, see ``Dialer.open``.
    """
    with closing(Dialer(config).open(route, _deadline(config.connect_timeout))) as connection:
        return connection.handshake() if isinstance(connection, TlsConnection) else None


def speaks_tls(route: Route, seconds: float) -> bool:
    """Whether a handshake succeeds with the host of ``route``, without verification. Not through a proxy."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((route.host, route.port), seconds) as sock,
            context.wrap_socket(sock, server_hostname=route.host),
        ):
            return True
    except OSError:
        return False


def speaks_http(route: Route, seconds: float) -> bool:
    """Whether a request in the clear gets an HTTP response where ``route`` leads. Not through a proxy."""
    try:
        with socket.create_connection((route.host, route.port), seconds) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % route.host.encode())
            return sock.recv(16).startswith(b"HTTP/")
    except OSError:
        return False


def ask(caller: Caller, request: Request, seconds: float) -> Reply:
    """Send ``request``, and return the response: also refusals, other than 407, 429 and 5xx without 501.

    Objects are asked for without their checksum: some servers refuse that, and then a job does not ask, either.

    Raises:
        S3ThrottledError, S3ServiceError: HTTP 429 or 5xx, in all attempts.
        S3Exception: there was no response.
    """
    started = time.perf_counter()

    def reply(response: Response) -> Reply:
        body = response.read(DOCUMENT_LIMIT)
        document = parse_error(body) if response.status >= 300 and body else None
        seconds = time.perf_counter() - started
        return Reply(request.operation, response.status, response.headers, body, document, seconds)

    if request.operation == "GetObject":
        request = without_asking(request)
    try:
        return caller.call(request._replace(also_good=_REFUSALS), reply, limit=seconds)
    except S3ServiceError as error:
        if error.operation == request.operation or not error.status or error.status >= 500 or error.status == 429:
            raise
        document = ErrorDocument(error.code or "", error.message)  # of the session of a directory bucket
        seconds = time.perf_counter() - started
        return Reply(error.operation or "", error.status, {}, b"", document, seconds)


def _deadline(seconds: float) -> Deadline:
    return Deadline(CancelToken(), time.perf_counter() + seconds)
