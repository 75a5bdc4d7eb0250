"""A server that sends exact bytes.

    answer = response(200, bytes(1000))
    with ScriptedServer([[Receive("GET", "/b/k"), Send(answer[:500]), Reset()]]) as server: ...

A script is a list of connections in the order in which they are opened, each a list of steps. A connection is closed
after its steps; connections beyond the script are closed at once. Instead of a script, a function may respond to each
request, on any number of connections.
"""

from __future__ import annotations

import io
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.servers.http_messages import ReceivedRequest, read_request
from tests.servers.tcp import CloseConnection, ResetConnection, TcpServer


@dataclass(frozen=True)
class Receive:
    """Read one request; fail the test if it is not the expected one."""

    method: str | None = None
    target: str | None = None


class Send:
    """Send the pieces one by one, or all of them cut into pieces of ``size`` bytes."""

    def __init__(self, *pieces: bytes | memoryview, size: int | None = None) -> None:
        self.pieces = list(pieces)
        if size:
            data = b"".join(pieces)
            self.pieces = [data[i : i + size] for i in range(0, len(data), size)]


@dataclass(frozen=True)
class Stall:
    """Send nothing until the test sets ``release``; the end of the server sets it too."""

    release: threading.Event


@dataclass(frozen=True)
class Close:
    """Close the connection (FIN) and ignore the remaining steps."""


@dataclass(frozen=True)
class Reset:
    """Reset the connection (RST) and ignore the remaining steps."""


Step = Receive | Send | Stall | Close | Reset
Reply = bytes | Sequence[Step]


class ScriptedServer(TcpServer):
    """See the module.

    Args:
        script: the connections, each a list of steps.
        handler: returns the bytes or steps for a request; empty ones close the connection.
        tls: the server's side of TLS (``private_ca.server_context``).

    Attributes:
        requests: every request, whole, in the order of arrival.
    """

    def __init__(
        self,
        script: Sequence[Sequence[Step]] = (),
        *,
        handler: Callable[[ReceivedRequest], Reply] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(tls)
        self.requests: list[ReceivedRequest] = []
        self._script = script
        self._handler = handler

    def serve(self, connection: socket.socket, number: int) -> None:
        with connection.makefile("rb") as stream:
            if self._handler is None:
                steps = self._script[number] if number < len(self._script) else ()
                self._play(steps, connection, stream)
                return
            while (request := self._receive(stream)) and (answer := self._handler(request)):
                self._play([Send(answer)] if isinstance(answer, bytes) else answer, connection, stream)

    def _play(self, steps: Sequence[Step], connection: socket.socket, stream: io.BufferedReader) -> None:
        for step in steps:
            if isinstance(step, Receive):
                self._expect(step, stream)
            elif isinstance(step, Send):
                for piece in step.pieces:
                    connection.sendall(piece)
            elif isinstance(step, Stall):
                self.stall(step.release)
            else:
                raise CloseConnection if isinstance(step, Close) else ResetConnection

    def _expect(self, step: Receive, stream: io.BufferedReader) -> None:
        request = self._receive(stream)
        if request is None:
            raise CloseConnection  # the client has closed it
        expected = (step.method or request.method, step.target or request.target)
        assert (request.method, request.target) == expected

    def _receive(self, stream: io.BufferedReader) -> ReceivedRequest | None:
        request = read_request(stream)
        if request is not None:
            self.requests.append(request)
        return request
