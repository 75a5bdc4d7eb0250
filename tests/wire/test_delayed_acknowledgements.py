"""Servers that send head and body apart, and the body only when the head was acknowledged (Nagle's algorithm).

Ceph's gateway does (https://tracker.ceph.com/issues/22525 is about the same), and many HTTP servers with default
socket options. Linux puts off the acknowledgement by 40 ms.
"""

from __future__ import annotations

import socket
import ssl
import time

import pytest

from s3torchconnector._wire import operations, read_document
from tests.servers.http_messages import read_request, response
from tests.servers.tcp import TcpServer
from tests.servers.tls import PrivateCA
from tests.wire.support import open_caller

pytestmark = pytest.mark.usefixtures("keys")
BODY = bytes(1000)
DELAY = 0.04  # seconds


class SendsApart(TcpServer):
    """Sends the head, then the body, on sockets with default options."""

    def serve(self, connection: socket.socket, number: int) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        with connection.makefile("rb") as stream:
            while read_request(stream):
                head, _, body = response(200, BODY, {"ETag": '"one"'}).partition(b"\r\n\r\n")
                connection.sendall(head + b"\r\n\r\n")
                connection.sendall(body)


def seconds_of_a_request(endpoint: str) -> float:
    """The shortest of requests on one connection, after the first ones, which Linux acknowledges at once."""
    times = []
    with open_caller(endpoint) as caller:
        for _ in range(30):
            began = time.perf_counter()
            assert caller.call(operations.get_object("b", "k"), read_document) == BODY
            times.append(time.perf_counter() - began)
    return min(times[-10:])


def test_a_body_is_not_delayed_until_its_head_is_acknowledged() -> None:
    with SendsApart() as server:
        assert seconds_of_a_request(server.endpoint) < DELAY / 2


def test_the_same_under_tls(private_ca: PrivateCA, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca.bundle))
    context: ssl.SSLContext = private_ca.server_context
    with SendsApart(context) as server:
        assert seconds_of_a_request(server.endpoint) < DELAY / 2
