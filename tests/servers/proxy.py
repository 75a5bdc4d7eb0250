"""A proxy in front of a real server: records requests, and has the faults that a test asks for.

    with RecordingProxy(s3_server.endpoint) as proxy:
        proxy.misbehave = first(1, CutBody(after=1000), when=lambda request: request.method == "GET")
        ...
        assert [get.range for get in proxy.of("GET")] == ["bytes=0-9999", "bytes=1000-9999"]

Clients use ``proxy.endpoint`` as their endpoint. Every byte is passed on as it came, also the Host header,
which is signed; rclone and moto do not mind that it names the proxy.
"""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from tests.servers.http_messages import Head, ReceivedRequest, read_body, read_head, read_request
from tests.servers.tcp import CloseConnection, ResetConnection, TcpServer


@dataclass(frozen=True)
class Drop:
    """Close the connection instead of passing the request on."""


@dataclass(frozen=True)
class LoseResponse:
    """Pass the request on, then close the connection without a response."""


@dataclass(frozen=True)
class Replace:
    """Send these bytes (``response()``, ``s3_error()``) instead of passing the request on."""

    answer: bytes


@dataclass(frozen=True)
class StallBody:
    """Stop after so many bytes of the body, before the head if None, until the test sets ``release``."""

    release: threading.Event
    after: int | None = None


@dataclass(frozen=True)
class CutBody:
    """Close (or reset) the connection after so many bytes of the body."""

    after: int
    reset: bool = False


@dataclass(frozen=True)
class FlipByte:
    """Invert the byte that comes after so many bytes of the body."""

    after: int


Fault = Drop | LoseResponse | Replace | StallBody | CutBody | FlipByte
Hook = Callable[[ReceivedRequest], Fault | None]


def first(times: int, fault: Fault, when: Callable[[ReceivedRequest], bool] = lambda request: True) -> Hook:
    """A hook that applies ``fault`` to the first requests for which ``when`` holds, and to no later ones."""
    left = threading.Semaphore(times)
    return lambda request: fault if when(request) and left.acquire(blocking=False) else None


@dataclass
class RecordedExchange:
    """One request and its outcome; complete before the client has its last byte."""

    request: ReceivedRequest  # without its body
    request_bytes: int
    status: int | None = None  # None: no response
    body_bytes: int = 0

    @property
    def method(self) -> str:
        return self.request.method

    @property
    def path(self) -> str:
        return self.request.path

    @property
    def query(self) -> dict[str, str]:
        return self.request.query

    @property
    def range(self) -> str | None:
        return self.request.range


class RecordingProxy(TcpServer):
    """See the module.

    Attributes:
        exchanges: every request in the order of arrival.
        misbehave: a hook that returns the fault of a request, or None to pass it on.
    """

    def __init__(self, upstream: str, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls)
        url = urlsplit(upstream)
        assert url.scheme == "http", "the proxy speaks plain HTTP to its server"
        self._upstream = (url.hostname or "", url.port or 80)
        self.exchanges: list[RecordedExchange] = []
        self.misbehave: Hook = lambda request: None

    def of(self, method: str, path: str | None = None) -> list[RecordedExchange]:
        """The exchanges with this method, and this path (``/bucket/key``) if given."""
        return [each for each in self.exchanges if each.method == method and path in (None, each.path)]

    def serve(self, connection: socket.socket, number: int) -> None:
        with contextlib.ExitStack() as stack:
            upstream = stack.enter_context(socket.create_connection(self._upstream))
            self.hold(upstream)
            answers = stack.enter_context(upstream.makefile("rb"))
            requests = stack.enter_context(connection.makefile("rb"))
            while request := read_request(requests):
                exchange = RecordedExchange(replace(request, body=b""), len(request.body))
                self.exchanges.append(exchange)
                for piece in self._answer(request, upstream, answers, exchange):
                    connection.sendall(piece)

    def _answer(
        self, request: ReceivedRequest, upstream: socket.socket, answers: io.BufferedReader, exchange: RecordedExchange
    ) -> Iterator[bytes]:
        fault = self.misbehave(request)
        if isinstance(fault, Drop):
            raise CloseConnection
        if isinstance(fault, Replace):
            exchange.status = int(fault.answer.split(b" ", 2)[1])
            yield fault.answer
            return
        upstream.sendall(request.head.raw + request.body)
        head, body = read_response(answers, request)
        if isinstance(fault, LoseResponse):
            list(body)
            raise CloseConnection
        if isinstance(fault, StallBody) and fault.after is None:
            self.stall(fault.release)
        exchange.status = head.status
        yield head.raw
        for piece in self._altered(body, fault):
            exchange.body_bytes += len(piece)
            yield piece

    def _altered(self, body: Iterable[bytes], fault: Fault | None) -> Iterator[bytes]:
        left = fault.after if isinstance(fault, StallBody | CutBody | FlipByte) else None
        for piece in body:
            if left is not None and len(piece) > left:
                yield piece[:left]
                piece = self._apply(fault, piece[left:])
                left = None
            elif left is not None:
                left -= len(piece)
            yield piece

    def _apply(self, fault: Fault | None, rest: bytes) -> bytes:
        if isinstance(fault, CutBody):
            raise ResetConnection if fault.reset else CloseConnection
        if isinstance(fault, StallBody):
            self.stall(fault.release)
            return rest
        return bytes([rest[0] ^ 0xFF]) + rest[1:]


def read_response(stream: io.BufferedReader, request: ReceivedRequest) -> tuple[Head, Iterator[bytes]]:
    """The head of the response to ``request`` and its body in pieces; interim responses (100) are skipped."""
    head = read_head(stream)
    while head is not None and head.status < 200:
        head = read_head(stream)
    if head is None:
        raise CloseConnection  # as the server did
    if request.method == "HEAD" or head.status in (204, 304):
        return head, iter(())
    return head, read_body(stream, head, to_the_end=True)
