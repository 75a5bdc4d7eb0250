"""A server that refuses an upload after its head and reads no more: its reason is raised, and soon."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from s3torchconnector import S3ClientConfig
from s3torchconnector._config import MIB
from s3torchconnector._errors import S3ConnectionError
from s3torchconnector._wire import Caller, operations
from tests.conftest import PrivateCA
from tests.servers.http_messages import read_body, read_head, response, s3_error
from tests.servers.tcp import CloseConnection, TcpServer
from tests.wire.support import open_caller

pytestmark = pytest.mark.usefixtures("keys")
SIZE = 32 * MIB  # more than sockets hold
OFTEN = 4 * MIB
SILENCE = 20.0  # seconds; nothing here may last as long
CONFIG = S3ClientConfig(max_attempts=3, read_timeout=SILENCE)
REFUSED = s3_error(403, "AccessDenied", "not to you")
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


class Refusing(TcpServer):
    """Reads the head of a request, sends something in pieces, and reads no more."""

    def __init__(self, *says: bytes, then: type[Exception] | None = None, ca: PrivateCA | None = None) -> None:
        super().__init__(ca.server_context if ca else None)
        self._says = says
        self._then = then

    def serve(self, connection: socket.socket, number: int) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(1)
        for piece in self._says:
            connection.sendall(piece)
        if self._then is not None:
            raise self._then
        self.stall(threading.Event())


class Storing(TcpServer):
    """Sends something after the head of a request, and again while it reads the body."""

    def __init__(self, meanwhile: bytes, done: bytes, ca: PrivateCA | None) -> None:
        super().__init__(ca.server_context if ca else None)
        self._meanwhile, self._done = meanwhile, done
        self.sizes: list[int] = []

    def serve(self, connection: socket.socket, number: int) -> None:
        with connection.makefile("rb") as stream:
            head = read_head(stream)
            assert head is not None
            connection.sendall(self._meanwhile)
            size = 0
            for piece in read_body(stream, head):
                if size // OFTEN != (size := size + len(piece)) // OFTEN:
                    connection.sendall(self._meanwhile[:7])
                    connection.sendall(self._meanwhile[7:])
            self.sizes.append(size)
            connection.sendall(self._done)


def put(caller: Caller, size: int = SIZE) -> None:
    caller.call(operations.put_object("b", "k", [bytes(size)]), lambda _: None)


@pytest.fixture(params=["plain", "tls"])
def ca(request: pytest.FixtureRequest, private_ca: PrivateCA, monkeypatch: pytest.MonkeyPatch) -> PrivateCA | None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca.bundle))
    return private_ca if request.param == "tls" else None


@pytest.mark.parametrize(
    "says",
    [
        [REFUSED],
        [INTERIM, REFUSED],
        [INTERIM + REFUSED[:5], REFUSED[5:]],
        [INTERIM[:20], INTERIM[20:] + INTERIM * 2 + REFUSED],
    ],
    ids=["at once", "after an interim response", "in two pieces", "after several"],
)
def test_the_reason_of_a_refusal_is_raised(ca: PrivateCA | None, says: list[bytes]) -> None:
    with Refusing(*says, ca=ca) as server, open_caller(server.endpoint, CONFIG) as caller:
        began = time.monotonic()
        with pytest.raises(PermissionError, match="not to you"):
            put(caller)
        assert time.monotonic() - began < SILENCE
        assert server.accepted == 1


def test_the_reason_is_read_from_a_server_that_hangs_up(ca: PrivateCA | None) -> None:
    """The system resets the connection, because the server has not read everything."""
    with (
        Refusing(REFUSED, then=CloseConnection, ca=ca) as server,
        open_caller(server.endpoint, CONFIG) as caller,
        pytest.raises(PermissionError, match="not to you"),
    ):
        put(caller)


def test_interim_responses_do_not_end_an_upload(ca: PrivateCA | None) -> None:
    done = response(200, headers={"ETag": '"e"'})
    with Storing(INTERIM, done, ca=ca) as server, open_caller(server.endpoint, CONFIG) as caller:
        put(caller)
        assert server.sizes == [SIZE]
        assert server.accepted == 1


@pytest.mark.parametrize("says", [response(200, headers={"ETag": '"e"'}), b"garbage", b""])
def test_a_response_before_the_whole_body_is_no_success(ca: PrivateCA | None, says: bytes) -> None:
    with (
        Refusing(says, then=None if says else CloseConnection, ca=ca) as server,
        open_caller(server.endpoint, CONFIG) as caller,
        pytest.raises(S3ConnectionError, match=r"before it had the whole request|broke while sending"),
    ):
        put(caller)
