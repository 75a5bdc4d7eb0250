"""Signals that arrive all the time (a timer) do not extend the wait for a silent server."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product

import pytest

from s3torchconnector import S3ClientConfig
from s3torchconnector._errors import S3TimeoutError
from s3torchconnector._wire import operations, read_document
from tests.conftest import PrivateCA
from tests.servers.http_messages import response
from tests.servers.scripted import Receive, ScriptedServer, Send, Stall, Step
from tests.servers.silent import silent_port
from tests.servers.tcp import TcpServer
from tests.wire.support import get, open_caller

pytestmark = pytest.mark.usefixtures("keys")
TIMEOUT = 0.12
PERIOD = 0.02
HANGS = 15.0  # seconds after which the server releases the client, and the test fails
CONFIG = S3ClientConfig(max_attempts=1, read_timeout=TIMEOUT, connect_timeout=TIMEOUT)
LONG = response(200, headers={"Content-Length": "4000000"})


@contextmanager
def a_timer() -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    bound_of_test = signal.setitimer(signal.ITIMER_REAL, PERIOD, PERIOD)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *bound_of_test)


@contextmanager
def ends_in_time(release: threading.Event) -> Iterator[None]:
    giving_up = threading.Timer(HANGS, release.set)
    giving_up.start()
    began = time.monotonic()
    try:
        with a_timer(), pytest.raises(S3TimeoutError):
            yield
    finally:
        giving_up.cancel()
        giving_up.join()
    assert time.monotonic() - began < HANGS


@pytest.mark.parametrize("is_tls", [False, True])
@pytest.mark.parametrize(
    ("method", "said"),
    [*product(("GET", "HEAD"), (b"", b"HTTP/1.1 200")), ("GET", LONG), ("GET", LONG + bytes(3_999_990))],
)
def test_a_silent_server(
    method: str, said: bytes, is_tls: bool, private_ca: PrivateCA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its response, within the head, or within a body that few system calls receive."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca.bundle))
    release = threading.Event()
    script: list[Step] = [Receive(), Send(said) if said else Send(), Stall(release)]
    with (
        ScriptedServer([script], tls=private_ca.server_context if is_tls else None) as server,
        open_caller(server.endpoint, CONFIG) as caller,
        ends_in_time(release),
    ):
        ask = operations.get_object if method == "GET" else operations.head_object
        caller.call(ask("b", "k"), read_document)


class Deaf(TcpServer):
    """Accepts connections, and reads nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.release = threading.Event()

    def serve(self, connection: socket.socket, number: int) -> None:
        self.stall(self.release)


def test_a_server_that_takes_no_bytes() -> None:
    request = operations.put_object("b", "k", [bytes(32 << 20)])
    with Deaf() as server, open_caller(server.endpoint, CONFIG) as caller, ends_in_time(server.release):
        caller.call(request, lambda _: None)


def test_a_server_that_does_not_shake_hands() -> None:
    with (
        Deaf() as server,
        open_caller(server.endpoint.replace("http:", "https:"), CONFIG) as caller,
        ends_in_time(server.release),
    ):
        get(caller)


def test_a_server_that_accepts_nothing() -> None:
    with (
        silent_port() as port,
        open_caller(f"http://127.0.0.1:{port}", CONFIG) as caller,
        ends_in_time(threading.Event()),
    ):
        get(caller)
