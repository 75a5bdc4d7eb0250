"""Errors while no thread waits for the result: what was fetched early is asked for again when a read comes to it."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from s3torchconnector._errors import S3AccessDeniedError, S3Exception
from s3torchconnector.s3reader import S3ReaderConstructor
from tests.reading.support import MIB, VirtualObject, asked, client_of, content, open_object
from tests.servers.http_messages import ReceivedRequest, s3_error
from tests.servers.scripted import ScriptedServer, Step
from tests.servers.tcp import CloseConnection

pytestmark = pytest.mark.usefixtures("s3_server")  # for its keys

_OUTAGE = s3_error(500, "InternalError")


def _await_blocks(reader: Any) -> None:
    for block in list(reader._object._index):
        block.outcome.wait_until_set()


@pytest.mark.parametrize("size", [1000, 20 * MIB], ids=["small", "large"])
def test_an_object_prefetched_in_an_outage_is_read_after_it(size: int) -> None:
    served = VirtualObject(size, before=lambda request: _OUTAGE)
    with ScriptedServer(handler=served) as server, client_of(server.endpoint, max_attempts=1) as client:
        reader = open_object(client, "b")
        reader._start_early(size)
        _await_blocks(reader)
        served.before = lambda request: None
        assert reader.read() == content(0, size)


def test_what_trying_again_cannot_help_is_not_asked_twice() -> None:
    served = VirtualObject(1000, before=lambda request: s3_error(403, "AccessDenied"))
    with ScriptedServer(handler=served) as server, client_of(server.endpoint) as client:
        reader = open_object(client, "b")
        reader._start_early(1000)
        _await_blocks(reader)
        with pytest.raises(S3AccessDeniedError):
            reader.read()
    assert len(served.requests) == 1


def test_an_outage_while_reading_ahead_is_over_for_the_next_read() -> None:
    size, far, outage = 60 * MIB, 16 * MIB, threading.Event()
    outage.set()

    def answer(request: ReceivedRequest) -> bytes | None:
        start, _ = asked(request.range, size) or (0, 0)
        return _OUTAGE if outage.is_set() and start >= far else None

    served = VirtualObject(size, before=answer)
    with ScriptedServer(handler=served) as server, client_of(server.endpoint, max_attempts=1) as client:
        reader = open_object(client, "b")
        while not any(block.failed for block in reader._object._index):
            assert reader.read(MIB) == content(reader.tell() - MIB, reader.tell())
            assert reader.tell() < far
            _await_blocks(reader)
        outage.clear()
        while data := reader.read(MIB):
            assert data == content(reader.tell() - len(data), reader.tell())
        assert reader.tell() == size


def test_a_read_that_failed_leaves_nothing_that_fails_the_next() -> None:
    size, outage = 60 * MIB, threading.Event()
    served = VirtualObject(size, before=lambda request: _OUTAGE if outage.is_set() else None)
    with ScriptedServer(handler=served) as server, client_of(server.endpoint, max_attempts=1) as client:
        reader, buffer = open_object(client, "b"), bytearray(12 * MIB)
        assert reader.read(100) + reader.read(100) == content(0, 200)
        outage.set()
        with pytest.raises(S3Exception, match="InternalError"):
            reader.readinto(buffer)
        assert not any(block.failed for block in reader._object._index)
        outage.clear()
        assert reader.readinto(buffer) == len(buffer)
        assert buffer == content(200, 200 + len(buffer))


class _Impatient(ScriptedServer):
    """Closes a connection whose client has taken nothing for a while."""

    def __init__(self, handler: Any) -> None:
        super().__init__(handler=handler)
        self.gone = threading.Event()

    def _play(self, steps: Sequence[Step], connection: socket.socket, stream: io.BufferedReader) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        connection.settimeout(0.1)
        try:
            super()._play(steps, connection, stream)
        except TimeoutError:
            self.gone.set()
            raise CloseConnection from None
        connection.settimeout(None)


def test_a_server_that_drops_a_slow_program_is_no_failure() -> None:
    # On a busy machine, it may read nothing ahead at the moments when it computes, and the server has nothing to drop.
    assert any(_drops_while_a_program_computes() for _ in range(6))


def _drops_while_a_program_computes() -> int:
    served, part = VirtualObject(64 * MIB), 16 * MIB
    settings: dict[str, Any] = {"part_size": part, "memory_budget": part, "max_attempts": 1}
    with _Impatient(served) as server, client_of(server.endpoint, **settings) as client:
        reader = open_object(client, "b", reader_constructor=S3ReaderConstructor.sequential())
        drops = 0
        while data := reader.read(MIB):
            end = reader.tell()
            assert data == content(end - len(data), end)
            if end % (4 * MIB) == 0 and drops < 3:
                drops += server.gone.wait(0.25)  # while this program computes
                server.gone.clear()
        assert reader.tell() == served.size
        return drops
