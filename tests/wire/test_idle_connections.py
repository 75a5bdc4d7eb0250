"""Idle connections are closed when they are too old, and when others, or files, have to be opened."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from s3torchconnector import S3ClientConfig
from s3torchconnector._errors import S3ConnectionError
from s3torchconnector._types import ObjectInfo
from s3torchconnector._wire import CancelToken
from s3torchconnector._wire._connection import Connection
from s3torchconnector._wire._deadline import Deadline
from s3torchconnector._wire._dialer import Route
from s3torchconnector._wire._pool import ConnectionPool
from s3torchconnector.testing import S3Server
from tests.reading.support import client_of, open_object
from tests.servers.tls import PrivateCA


@pytest.fixture
def routes() -> Iterator[list[Route]]:
    """Ten servers that accept connections and send nothing."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=100)) for _ in range(10)]
        yield [Route("http", *listener.getsockname()) for listener in listeners]


@pytest.fixture
def pools() -> Iterator[list[ConnectionPool]]:
    """Two pools of at most twenty connections each."""
    pools = [ConnectionPool(S3ClientConfig(max_connections=20)) for _ in range(2)]
    yield pools
    for pool in pools:
        pool.close()


@contextlib.contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """This process may open only so many more files."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limits[0], 1024), limits[1]))
    held: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(count):
            os.close(held.pop())
        yield
    finally:
        for each in held:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def acquire(pool: ConnectionPool, route: Route) -> Connection:
    return pool.acquire(route, Deadline(CancelToken(), time.perf_counter() + 30))


def use(pool: ConnectionPool, route: Route, count: int) -> list[Connection]:
    """Acquire so many connections at a time and release them."""
    connections = [acquire(pool, route) for _ in range(count)]
    for connection in connections:
        pool.release(route, connection)
    return connections


def are_open(connections: list[Connection]) -> list[bool]:
    return [connection.fileno() >= 0 for connection in connections]


def test_max_connections_bounds_idle_connections_of_all_hosts(pools: list[ConnectionPool], routes: list[Route]) -> None:
    used = [connection for route in routes for connection in use(pools[0], route, 20)]
    assert are_open(used) == [False] * 180 + [True] * 20


def test_connections_idle_longest_are_closed_first(pools: list[ConnectionPool], routes: list[Route]) -> None:
    first, second = use(pools[0], routes[0], 10), use(pools[0], routes[1], 10)
    assert use(pools[0], routes[0], 8) == first[:1:-1]
    use(pools[0], routes[2], 5)
    assert (are_open(first), are_open(second)) == ([False] * 2 + [True] * 8, [False] * 3 + [True] * 7)


def test_connections_in_use_are_not_closed(pools: list[ConnectionPool], routes: list[Route]) -> None:
    used = [acquire(pools[0], route) for route in routes for _ in range(2)]
    pools[0].release(routes[0], used[0])
    others = [acquire(pools[0], routes[5])]
    assert are_open(used + others) == [False] + [True] * 20
    for connection in used[1:] + others:
        pools[0].discard(connection)
    assert pools[0].in_use == 0


def test_old_connections_are_closed_when_others_are_released(
    pools: list[ConnectionPool], routes: list[Route], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = use(pools[0], routes[0], 5)
    connection = acquire(pools[0], routes[1])
    for each in old[:3]:
        each.idle_since -= 1000
    pools[0].release(routes[1], connection)
    assert are_open([*old, connection]) == [False] * 3 + [True] * 3


def test_idle_connections_close_if_descriptors_run_out(pools: list[ConnectionPool], routes: list[Route]) -> None:
    """Also idle connections of other pools."""
    idle = use(pools[0], routes[0], 3) + use(pools[1], routes[1], 3)
    with descriptors_left(0):
        connection = acquire(pools[0], routes[2])
    assert are_open([*idle, connection]) == [False] * 6 + [True]
    pools[0].discard(connection)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_without_descriptors_the_error_names_the_limit(
    pools: list[ConnectionPool], routes: list[Route], host: str
) -> None:
    with descriptors_left(0), pytest.raises(S3ConnectionError, match=r"as it may \(`ulimit -n` is 1024\).*close files"):
        acquire(pools[0], routes[0]._replace(host=host))
    assert pools[0].in_use == 0


def test_the_trust_store_is_not_read_in_part(
    pools: list[ConnectionPool], routes: list[Route], private_ca: PrivateCA
) -> None:
    """OpenSSL takes a trust store that it cannot open for an empty one, and the context would be kept."""
    with descriptors_left(1), pytest.raises(S3ConnectionError, match="ulimit"):
        acquire(pools[0], routes[0]._replace(scheme="https"))
    assert pools[0]._dialer._tls == {}


@pytest.mark.parametrize("idle", [0, 3])
def test_small_objects_are_read_if_idle_connections_close(s3_server: S3Server, bucket: str, idle: int) -> None:
    """Two descriptors for the pipe that wakes the multiplexer, and one for the connection."""
    (s3_server.folder / bucket / "key").write_bytes(b"12345")
    server = urlsplit(s3_server.endpoint)
    assert server.hostname is not None
    assert server.port is not None
    info = ObjectInfo("key", "", 5, 0)
    with (
        client_of(s3_server.endpoint, max_attempts=1) as client,
        open_object(client, bucket, object_info=info) as reader,
    ):
        use(client._runtime().caller._pool, Route("http", server.hostname, server.port), idle)
        with descriptors_left(0):
            if idle:
                reader._start_early()
                assert reader.read() == b"12345"
            else:
                with pytest.raises(S3ConnectionError, match=r"small objects cannot be fetched: .*ulimit"):
                    reader._start_early()
        assert reader.read() == (b"" if idle else b"12345")
    assert client._runtime().budget.taken == 0
    client.close()
