"""Large bodies on real sockets: all bytes are received, however they arrive, and an end is noticed at once."""

from __future__ import annotations

import fcntl
import random
import socket
import ssl
import struct
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from s3torchconnector._config import KIB, MIB
from s3torchconnector._errors import S3TimeoutError
from s3torchconnector._wire._connection import Connection
from s3torchconnector._wire._tls_connection import _RECORD, _WAKE_UP_BYTES, TlsConnection
from tests.reading.support import wait_until
from tests.servers.tls import PrivateCA

SILENCE = 60.0  # seconds; nothing here may last as long
SIZE = 8 * MIB


@pytest.fixture(params=["plain", "tls"])
def pair(request: pytest.FixtureRequest, private_ca: PrivateCA) -> Iterator[tuple[Connection, socket.socket]]:
    """A connection, and the server's end of it."""
    with sockets() as (client, server):
        if request.param == "plain":
            yield Connection(client, SILENCE, "the test's server"), server
        else:
            with secured(client, server, private_ca) as (secure_client, secure_server):
                yield TlsConnection(secure_client, SILENCE, "the test's server"), secure_server


@contextmanager
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with client, server:
        yield client, server


@contextmanager
def secured(
    client: socket.socket, server: socket.socket, private_ca: PrivateCA
) -> Iterator[tuple[ssl.SSLSocket, ssl.SSLSocket]]:
    context = private_ca.server_context
    secure = context.wrap_socket(server, server_side=True, do_handshake_on_connect=False)
    handshake = threading.Thread(target=secure.do_handshake, daemon=True)
    handshake.start()
    trusting = ssl.create_default_context(cafile=str(private_ca.bundle))
    with trusting.wrap_socket(client, server_hostname="localhost") as secure_client, secure:
        handshake.join()
        yield secure_client, secure


def received(connection: Connection, size: int) -> bytes:
    """Receive a body of ``size`` bytes, up to the end of the connection at the latest."""
    body = bytearray(size)
    view, done = memoryview(body), 0
    while done < size and (count := connection.readinto(view[done:], fill=True)):
        done += count
    return bytes(body[:done])


@pytest.mark.parametrize("size", [2 * MIB - 1, 2 * MIB, 2 * MIB + 1, SIZE, SIZE + 511 * KIB])
@pytest.mark.parametrize("piece", [1448, 100 * KIB, 512 * KIB, SIZE])
def test_all_of_a_body_is_received(pair: tuple[Connection, socket.socket], size: int, piece: int) -> None:
    connection, server = pair
    body = random.Random(size).randbytes(size)

    def send() -> None:
        for start in range(0, size, piece):
            server.sendall(body[start : start + piece])

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    assert received(connection, size) == body
    sender.join()


def test_bytes_after_a_body_are_not_read(pair: tuple[Connection, socket.socket]) -> None:
    connection, server = pair
    sender = threading.Thread(target=server.sendall, args=(bytes(SIZE) + b"next",), daemon=True)
    sender.start()
    assert received(connection, SIZE) == bytes(SIZE)
    assert received(connection, 4) == b"next"  # few bytes wake again
    sender.join()


@pytest.mark.parametrize("missing", [1, 100 * KIB, 512 * KIB, SIZE - 1])
def test_an_end_is_noticed_at_once(pair: tuple[Connection, socket.socket], missing: int) -> None:
    connection, server = pair
    began = time.monotonic()

    def send() -> None:
        server.sendall(bytes(SIZE - missing))
        server.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    assert received(connection, SIZE) == bytes(SIZE - missing)
    assert time.monotonic() - began < SILENCE / 2
    sender.join()


def test_an_abort_wakes_a_read_of_a_large_body(pair: tuple[Connection, socket.socket]) -> None:
    connection, server = pair
    server.sendall(b"few")
    aborted = threading.Timer(0.1, connection.abort)
    aborted.start()
    assert received(connection, SIZE) == b"few"
    aborted.join()


@pytest.mark.parametrize("rest_of_record", [1, 100, _RECORD - 1])
def test_a_record_that_is_cut_in_two_is_waited_for(private_ca: PrivateCA, rest_of_record: int) -> None:
    """OpenSSL holds a part of a record, so that fewer bytes may be missing than the thread is woken for."""
    size = 200 * _RECORD + 1 + _WAKE_UP_BYTES
    with sockets() as (client, server):
        records = Records(server, private_ca)
        handshake = threading.Thread(target=records.handshake, daemon=True)
        handshake.start()
        trusting = ssl.create_default_context(cafile=str(private_ca.bundle))
        with trusting.wrap_socket(client, server_hostname="localhost") as secure:
            handshake.join()
            body = random.Random(size).randbytes(size)
            cut = records.of(body[: 201 * _RECORD])
            results: list[bytes] = []
            connection = TlsConnection(secure, SILENCE, "the test's server")
            receiver = threading.Thread(target=lambda: results.append(received(connection, size)), daemon=True)
            receiver.start()
            server.sendall(cut[:-rest_of_record])
            wait_until(lambda: arrived(server, secure))
            server.sendall(cut[-rest_of_record:] + records.of(body[201 * _RECORD :]))
            receiver.join(SILENCE / 2)
            assert results == [body]


class Records:
    """The server's end of a TLS connection whose records the test sends itself."""

    def __init__(self, sock: socket.socket, private_ca: PrivateCA) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = private_ca.server_context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._sock.sendall(self._outgoing.read())
                self._incoming.write(self._sock.recv(_RECORD))
            else:
                self._sock.sendall(self._outgoing.read())
                return

    def of(self, data: bytes) -> bytes:
        """The records that contain ``data``."""
        for start in range(0, len(data), _RECORD):
            self._tls.write(data[start : start + _RECORD])
        return self._outgoing.read()


def arrived(sender: socket.socket, receiver: socket.socket) -> bool:
    """Whether the receiver has taken all sent bytes from the kernel."""
    return not any(
        struct.unpack("i", fcntl.ioctl(sock, request, bytes(4)))[0]
        for sock, request in ((sender, termios.TIOCOUTQ), (receiver, termios.FIONREAD))
    )


def test_few_bytes_in_a_long_time_are_no_silence(private_ca: PrivateCA) -> None:
    deadline, pieces = 0.2, 4
    with sockets() as (client, server), secured(client, server, private_ca) as (secure_client, secure_server):
        connection = TlsConnection(secure_client, deadline, "the test's server")
        body, done = memoryview(bytearray(SIZE)), 0
        for number in range(pieces):
            # While the client waits, at the latest from the second one on: for more than this.
            sending = threading.Timer(deadline / 2, secure_server.sendall, (bytes([number]) * 1000,))
            sending.start()
            done += connection.readinto(body[done:], fill=True)
            sending.join()
        assert done
        while done < pieces * 1000:
            done += connection.readinto(body[done:], fill=True)
        assert body[:done] == b"".join(bytes([number]) * 1000 for number in range(pieces))
        with pytest.raises(S3TimeoutError):
            connection.readinto(body[done:], fill=True)


def test_few_bytes_before_a_silence_cost_one_timeout() -> None:
    """Not one for each byte."""
    with sockets() as (client, server):
        connection = Connection(client, 0.05, "the test's server")
        server.sendall(bytes(1000))
        view = memoryview(bytearray(SIZE))
        assert connection.readinto(view, fill=True) == 1000
        with pytest.raises(S3TimeoutError):
            connection.readinto(view[1000:], fill=True)
