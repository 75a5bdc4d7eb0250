"""Large bodies on real sockets: whatever arrives when, all of it is received, and an end is noticed at once."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from s3torchconnector._config import KIB, MIB
from s3torchconnector._wire._connection import Connection

SILENCE = 60.0  # seconds; nothing here may last as long
SIZE = 8 * MIB


@pytest.fixture
def pair() -> Iterator[tuple[Connection, socket.socket]]:
    """A connection, and the server's end of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with client, server:
        yield Connection(client, SILENCE, "the test's server"), server


def received(connection: Connection, size: int) -> bytes:
    """What comes of a body of ``size`` bytes, until all of it or the end is there."""
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


def test_what_follows_a_body_is_left_alone(pair: tuple[Connection, socket.socket]) -> None:
    connection, server = pair
    sender = threading.Thread(target=server.sendall, args=(bytes(SIZE) + b"next",), daemon=True)
    sender.start()
    assert received(connection, SIZE) == bytes(SIZE)
    assert received(connection, 4) == b"next"  # few bytes wake, as before
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


def test_an_abort_wakes_who_waits_for_much(pair: tuple[Connection, socket.socket]) -> None:
    connection, server = pair
    server.sendall(b"few")
    aborted = threading.Timer(0.1, connection.abort)
    aborted.start()
    assert received(connection, SIZE) == b"few"
    aborted.join()
