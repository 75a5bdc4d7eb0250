"""Stray bytes, which belong to no response, are never taken for one, whenever they come."""

from __future__ import annotations

import select
import threading

import pytest

from s3torchconnector import S3ClientConfig
from s3torchconnector._wire import Caller, CancelToken, operations
from tests.conftest import PrivateCA
from tests.reading.support import wait_until
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.scripted import Receive, ScriptedServer, Send, Stall, Step
from tests.wire.support import get, open_caller

pytestmark = pytest.mark.usefixtures("keys")
TIMEOUT = 10.0  # seconds until a hang fails the test
ONCE = S3ClientConfig(max_attempts=1)
RIGHT, WRONG = b"right" * 2000, b"wrong" * 2000
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
STRAY = response(200, WRONG)
GOOD = [Receive("GET", "/b/k"), Send(response(200, RIGHT))]


@pytest.fixture(params=["plain", "tls"])
def is_tls(request: pytest.FixtureRequest, private_ca: PrivateCA, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca.bundle))
    return bool(request.param == "tls")


def server_of(private_ca: PrivateCA, is_tls: bool, *script: list[Step]) -> ScriptedServer:
    return ScriptedServer(script, tls=private_ca.server_context if is_tls else None)


def head(caller: Caller, key: str = "k") -> None:
    caller.call(operations.head_object("b", key), lambda _: None)


def idle_socket(caller: Caller) -> int:
    """The descriptor of the only connection, an idle one."""
    (connection,) = caller._pool._open
    return connection.fileno()


@pytest.mark.parametrize("stray", [STRAY, b"x", b""], ids=["response", "byte", "end"])
def test_stray_bytes_while_a_connection_is_idle(private_ca: PrivateCA, is_tls: bool, stray: bytes) -> None:
    rests = threading.Event()
    late = [Receive("HEAD"), Send(HEAD), Stall(rests), Send(stray), Stall(threading.Event())][: 5 if stray else 3]
    with server_of(private_ca, is_tls, late, GOOD) as server, open_caller(server.endpoint, ONCE) as caller:
        head(caller)
        rests.set()
        assert select.select([idle_socket(caller)], [], [], TIMEOUT)[0]
        assert get(caller) == RIGHT
        assert [each.method for each in server.requests] == ["HEAD", "GET"]
        assert server.accepted == 2


def test_stray_bytes_in_one_record_with_a_body(private_ca: PrivateCA, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSL holds them, so that the socket is not readable."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca.bundle))
    whole = response(200, RIGHT)
    pieces = Send(whole[: -len(RIGHT)], RIGHT + STRAY[:5000])
    first = [Receive("GET"), pieces, Receive("GET"), Send(STRAY[5000:])]
    with server_of(private_ca, True, first, GOOD) as server, open_caller(server.endpoint, ONCE) as caller:
        assert get(caller) == RIGHT
        assert get(caller) == RIGHT
        assert server.accepted == 2


@pytest.mark.parametrize("stray", [WRONG, s3_error(404, "NoSuchKey").partition(b"\r\n\r\n")[2]])
def test_the_late_body_of_another_response(private_ca: PrivateCA, is_tls: bool, stray: bytes) -> None:
    """It comes after the next request was sent, which is sent again on a new connection, within its first attempt."""
    late = [Receive("HEAD"), Send(HEAD), Receive("GET"), Send(stray)]
    with server_of(private_ca, is_tls, late, GOOD) as server, open_caller(server.endpoint, ONCE) as caller:
        head(caller)
        assert get(caller) == RIGHT
        assert [each.method for each in server.requests] == ["HEAD", "GET", "GET"]


def test_a_body_after_204_is_no_response(private_ca: PrivateCA) -> None:
    """A 204 response that announces a body."""
    no_content = b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"
    with (
        server_of(private_ca, False, [Receive("DELETE"), Send(no_content), Receive()], GOOD) as server,
        open_caller(server.endpoint, ONCE) as caller,
    ):
        caller.call(operations.delete_object("b", "k"), lambda _: None)
        assert get(caller) == RIGHT
        assert [each.method for each in server.requests] == ["DELETE", "GET"]


def test_connections_without_stray_bytes_are_used_again(private_ca: PrivateCA, is_tls: bool) -> None:
    """Also a connection opened ahead, on which TLS session tickets have not been read yet."""

    def answer(request: ReceivedRequest) -> bytes:
        return HEAD if request.method == "HEAD" else response(200, RIGHT)

    tls = private_ca.server_context if is_tls else None
    with ScriptedServer(handler=answer, tls=tls) as server, open_caller(server.endpoint, ONCE) as caller:
        caller.connect("b", CancelToken())
        if is_tls:
            wait_until(lambda: bool(select.select([idle_socket(caller)], [], [], 0)[0]))
        for _ in range(3):
            head(caller)
            assert get(caller) == RIGHT
        assert server.accepted == 1
