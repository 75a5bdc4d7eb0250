"""A forward proxy, as ``HTTP_PROXY`` and ``HTTPS_PROXY`` name one: absolute targets and CONNECT."""

from __future__ import annotations

import base64
import selectors
import socket
import ssl
from urllib.parse import urlsplit

from tests.servers.http_messages import ReceivedRequest, read_request, response
from tests.servers.proxy import read_response
from tests.servers.tcp import CloseConnection, TcpServer

_PIECE = 1 << 18


class ForwardProxy(TcpServer):
    """See the module.

    Args:
        credentials: ``user:password`` that clients must send; others get 407.
        tls: with which clients speak to the proxy itself.

    Attributes:
        requests: the requests to the proxy itself, including CONNECTs.
    """

    def __init__(self, credentials: str | None = None, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls)
        self.requests: list[ReceivedRequest] = []
        self._expected = credentials and "Basic " + base64.b64encode(credentials.encode()).decode()

    def serve(self, connection: socket.socket, number: int) -> None:
        with connection.makefile("rb") as stream:
            while request := read_request(stream):
                self.requests.append(request)
                if self._expected not in (None, request.headers.get("proxy-authorization")):
                    connection.sendall(response(407, headers={"Proxy-Authenticate": "Basic"}))
                elif request.method == "CONNECT":
                    host, _, port = request.target.rpartition(":")
                    established = b"HTTP/1.1 200 Connection established\r\n\r\n"
                    self.tunnel(connection, (host.strip("[]"), int(port)), established)
                    return
                else:
                    self._forward(connection, request)

    def _forward(self, connection: socket.socket, request: ReceivedRequest) -> None:
        """Pass on one request, on a separate connection, with the target in origin form."""
        url = urlsplit(request.target)
        target = request.target.removeprefix(f"{url.scheme}://{url.netloc}") or "/"
        head = request.head.raw.replace(request.target.encode(), target.encode(), 1)
        with (
            self._connect((url.hostname or "", url.port or 80)) as upstream,
            upstream.makefile("rb") as stream,
        ):
            upstream.sendall(head + request.body)
            answer, body = read_response(stream, request)
            connection.sendall(answer.raw)
            for piece in body:
                connection.sendall(piece)

    def tunnel(self, connection: socket.socket, address: tuple[str, int], established: bytes) -> None:
        """Say that the other side is reached, and pass bytes both ways until either side closes."""
        with self._connect(address) as upstream, selectors.DefaultSelector() as selector:
            connection.sendall(established)
            selector.register(connection, selectors.EVENT_READ, upstream)
            selector.register(upstream, selectors.EVENT_READ, connection)
            while True:
                for key, _ in selector.select():
                    source, sink = key.fileobj, key.data
                    assert isinstance(source, socket.socket)
                    piece = source.recv(_PIECE)
                    if isinstance(source, ssl.SSLSocket) and source.pending():
                        piece += source.recv(source.pending())
                    if not piece:
                        raise CloseConnection
                    sink.sendall(piece)

    def _connect(self, address: tuple[str, int]) -> socket.socket:
        upstream = socket.create_connection(address)
        self.hold(upstream)
        return upstream
