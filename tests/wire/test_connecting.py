"""Opening connections: in time, however many addresses a name has, and never left open in a forked child."""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import psutil
import pytest

from s3torchconnector import S3ClientConfig
from s3torchconnector._errors import S3ConnectionError, S3TimeoutError
from s3torchconnector._wire._dialer import Dialer
from tests.conftest import PrivateCA
from tests.reading.support import wait_until
from tests.reading.test_reader_fork import Child
from tests.servers.http_messages import response
from tests.servers.scripted import ScriptedServer
from tests.servers.silent import silent_port
from tests.servers.tcp import TcpServer
from tests.wire.support import get, in_turn, open_caller, open_client

pytestmark = pytest.mark.usefixtures("keys")
TIMEOUT = 20.0  # seconds until a hang fails the test
GRACE = 10.0  # seconds that a loaded machine may take longer
NAME = "http://many.example:80"


@contextlib.contextmanager
def addresses(*ports: int) -> Iterator[None]:
    """Every name resolves to these ports of 127.0.0.1."""

    def getaddrinfo(*_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield


def refusing_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("count", [1, 40])  # which would take 8 s, one after the other
@pytest.mark.parametrize("through_a_proxy", [False, True])
def test_addresses_that_never_respond_take_one_timeout(
    count: int, through_a_proxy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = S3ClientConfig(max_attempts=1, connect_timeout=0.2, operation_timeout=30.0)
    if through_a_proxy:
        monkeypatch.setenv("http_proxy", NAME)
    with silent_port() as port, open_caller("http://s3.example", config) as caller, addresses(*[port] * count):
        began = time.monotonic()
        with pytest.raises(S3TimeoutError, match=r"within connect_timeout=0\.2 s"):
            get(caller)
        assert 0.15 < time.monotonic() - began < GRACE


def test_addresses_that_never_respond_end_with_the_operation() -> None:
    config = S3ClientConfig(connect_timeout=60.0, operation_timeout=0.3)
    with silent_port() as port, open_caller(NAME, config) as caller, addresses(*[port] * 8):
        began = time.monotonic()
        with pytest.raises(S3TimeoutError, match=r"operation_timeout=0\.3 s"):
            get(caller)
        assert time.monotonic() - began < GRACE


def test_dead_addresses_leave_time_for_the_others() -> None:
    config = S3ClientConfig(max_attempts=1, connect_timeout=30.0)
    with (
        silent_port() as port,
        ScriptedServer(handler=in_turn(response(200, b"x"))) as server,
        open_caller(NAME, config) as caller,
        addresses(port, port, port, server.address[1]),
    ):
        began = time.monotonic()
        assert get(caller) == b"x"
        assert time.monotonic() - began < GRACE


def test_addresses_that_refuse_are_skipped_at_once() -> None:
    config = S3ClientConfig(max_attempts=1, connect_timeout=60.0)
    with (
        ScriptedServer(handler=in_turn(response(200, b"x"))) as server,
        open_caller(NAME, config) as caller,
        addresses(*[refusing_port() for _ in range(7)], server.address[1]),
    ):
        began = time.monotonic()
        assert get(caller) == b"x"
        assert time.monotonic() - began < GRACE


def test_a_refusal_by_all_addresses_is_raised() -> None:
    with open_caller(NAME, S3ClientConfig(max_attempts=1)) as caller, addresses(refusing_port(), refusing_port()):
        with pytest.raises(S3ConnectionError, match=r"many\.example.*refused.*Is the endpoint right") as caught:
            get(caller)
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)


def test_a_refusal_does_not_end_the_wait_for_others() -> None:
    config = S3ClientConfig(max_attempts=1, connect_timeout=0.4)
    with silent_port() as port, open_caller(NAME, config) as caller, addresses(port, refusing_port()):
        began = time.monotonic()
        with pytest.raises(S3TimeoutError):
            get(caller)
        assert time.monotonic() - began > 0.3


# -- forks ------------------------------------------------------------------------------------------------------------


def sockets_to(port: int) -> bytes:
    """How many sockets of this process are connected, or connecting, to that port of this machine."""
    connections = psutil.Process().net_connections("tcp")
    return str(sum(bool(each.raddr) and each.raddr.port == port for each in connections)).encode()


class Silent(TcpServer):
    """Accepts connections and sends nothing."""

    def serve(self, connection: socket.socket, number: int) -> None:
        self.stall(threading.Event())


@pytest.mark.parametrize("until", ["accepted", "tunnel", "handshake"])
def test_a_connection_being_opened_is_closed_in_a_forked_child(until: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the server would keep it until the child ends. The parent goes on waiting for it."""
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(silent_port() if until == "accepted" else contextlib.nullcontext(0))
        port = port or stack.enter_context(Silent()).address[1]
        if until == "tunnel":
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        endpoint = f"{'http' if until == 'accepted' else 'https'}://127.0.0.1:{port}"
        client = stack.enter_context(open_client(endpoint, S3ClientConfig(max_attempts=1, connect_timeout=0.5)))
        others = sockets_to(port)
        opening = stack.enter_context(ThreadPoolExecutor()).submit(client.head_object, "b", "k")
        wait_until(lambda: sockets_to(port) != others)
        assert Child(lambda: sockets_to(port)).result() == others
        with pytest.raises(S3ConnectionError, match=r"timed out|within connect_timeout"):
            opening.result(TIMEOUT)


def test_a_fork_at_any_moment_while_a_connection_is_opened(
    private_ca: PrivateCA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca.bundle))
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"
    with ScriptedServer(handler=in_turn(head), tls=private_ca.server_context) as server:
        port = server.address[1]
        found: list[bytes] = []

        def fork(frame: FrameType, event: str, _: Any) -> None:
            if event in ("c_return", "return") and frame.f_code in codes:
                sys.setprofile(None)
                found.append(Child(lambda: sockets_to(port)).result())
                sys.setprofile(fork)

        create = ssl.SSLSocket._create.__func__  # type: ignore[attr-defined]
        codes = {each.__code__ for each in (create, ssl.SSLContext.wrap_socket, Dialer.open, Dialer._connect)}
        with open_client(server.endpoint) as client:
            client._runtime()
            sys.setprofile(fork)
            try:
                client.head_object("b", "k")
            finally:
                sys.setprofile(None)
        assert len(found) > 10
        assert set(found) == {b"0"}
