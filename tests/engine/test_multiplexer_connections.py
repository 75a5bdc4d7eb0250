"""The multiplexer does not wait for slow connections: workers open them, and it goes on meanwhile.

The server lets a TLS handshake wait until the test, or another connection, lets it go on.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from s3torchconnector import S3Reader
from s3torchconnector._errors import S3Exception
from s3torchconnector._s3client import S3Client
from s3torchconnector._types import ObjectInfo
from tests.conftest import PrivateCA
from tests.datasets.support import TIMEOUT, config
from tests.servers.http_messages import ReceivedRequest, response
from tests.servers.scripted import Close, Reply, ScriptedServer, Stall
from tests.servers.tcp import CloseConnection

COUNT = 8
BODY = bytes(1000)
WHOLE = response(206, BODY, {"Content-Range": f"bytes 0-{len(BODY) - 1}/{len(BODY)}", "ETag": '"e"'})


@pytest.fixture(autouse=True)
def trust(private_ca: PrivateCA, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca.bundle))


class Doorkeeper(ScriptedServer):
    """The handshakes of the first ``held`` connections wait for ``opened``: set by the test, or by the arrival of so
    many connections as ``opened_by``; or all are refused."""

    def __init__(self, ca: PrivateCA, held: int, opened_by: int | None = None, *, refuse: bool = False) -> None:
        super().__init__(handler=self._reply, tls=ca.server_context)
        self.opened = threading.Event()
        self.late = threading.Event()  # the end of what is late
        self._held, self._opened_by, self._refuse = held, opened_by, refuse
        self._arrived = 0
        self._late_ones = [[Stall(self.late), Close()]]

    def _reply(self, request: ReceivedRequest) -> Reply:
        return self._late_ones.pop() if request.path.endswith("/late") and self._late_ones else WHOLE

    def _wrap(self, connection: socket.socket, tls: ssl.SSLContext) -> socket.socket:
        if self._refuse:
            raise CloseConnection
        with self._lock:
            self._arrived += 1
            arrived = self._arrived
        if arrived == self._opened_by:
            self.opened.set()
        if arrived <= self._held:
            self.stall(self.opened)
        return super()._wrap(connection, tls)


def client_of(server: ScriptedServer, **settings: object) -> S3Client:
    return S3Client("us-east-1", endpoint=server.endpoint, s3client_config=config(connect_timeout=1000.0, **settings))


def readers_of(client: S3Client) -> Iterator[S3Reader]:
    for i in range(COUNT):
        reader = client.get_object("b", f"{i}", object_info=ObjectInfo(f"{i}", "", len(BODY), 0))
        reader._start_early(len(BODY))
        yield reader


def read_all(server: Doorkeeper, client: S3Client) -> None:
    with ThreadPoolExecutor() as threads:
        reading = [threads.submit(reader.read) for reader in list(readers_of(client))]
        try:
            assert [each.result(TIMEOUT) for each in reading] == [BODY] * COUNT
        finally:
            server.opened.set()


def test_slow_connections_are_opened_in_parallel(private_ca: PrivateCA) -> None:
    """None of them opens before all are asked for; the first one is tried only briefly."""
    with Doorkeeper(private_ca, COUNT + 1, opened_by=COUNT + 1) as server, client_of(server) as client:
        read_all(server, client)
        assert len(server.requests) == COUNT


def test_a_connection_that_does_not_open_delays_no_other(private_ca: PrivateCA) -> None:
    with Doorkeeper(private_ca, 2) as server, client_of(server) as client:
        read_all(server, client)
        assert len(server.requests) == COUNT


@pytest.mark.parametrize("threads", [1, 2])
def test_without_free_threads_the_multiplexer_connects_itself(private_ca: PrivateCA, threads: int) -> None:
    with (
        Doorkeeper(private_ca, 1, opened_by=2) as server,
        client_of(server, max_connections=threads) as client,
    ):
        read_all(server, client)
        assert len(server.requests) == COUNT


def test_if_no_connection_opens_each_object_raises(private_ca: PrivateCA) -> None:
    with Doorkeeper(private_ca, 0, refuse=True) as server, client_of(server) as client:
        for reader in list(readers_of(client)):
            with pytest.raises(S3Exception, match="TLS handshake"):
                reader.read()
            reader.close()
        assert client._runtime().budget.taken == 0


def test_a_late_request_is_hedged_on_a_connection_opened_for_it(private_ca: PrivateCA) -> None:
    with (
        Doorkeeper(private_ca, 1, opened_by=2) as server,
        client_of(server, max_connections=2) as client,
        ThreadPoolExecutor() as threads,
    ):

        def read(key: str) -> bytes:
            reader = client.get_object("b", key, object_info=ObjectInfo(key, "", len(BODY), 0))
            reader._start_early(len(BODY))
            return threads.submit(reader.read).result(TIMEOUT)

        try:
            for i in range(100):  # so that the usual time is known
                assert read(f"{i}") == BODY
            before = server.accepted
            assert read("late") == BODY
        finally:
            server.opened.set()
            server.late.set()
        assert server.accepted == before + 1
