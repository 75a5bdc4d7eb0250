"""What a stalled process can be asked: ``repr`` of the pool, the throttle, look-ups, requests and their caller."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from s3torchconnector import S3ClientConfig
from s3torchconnector._wire import CancelToken, operations
from s3torchconnector._wire._deadline import Deadline
from s3torchconnector._wire._dialer import Route
from s3torchconnector._wire._pool import ConnectionPool
from s3torchconnector._wire._shared_lookup import SharedLookup
from s3torchconnector._wire._throttle import Throttle
from tests.reading.support import wait_until
from tests.servers.http_messages import response
from tests.servers.scripted import ScriptedServer, Send, Stall
from tests.servers.tcp import TcpServer
from tests.wire.support import get, open_caller

pytestmark = pytest.mark.usefixtures("keys")
HANGS = 20.0  # seconds until a hang fails the test


def within(seconds: float = HANGS, token: CancelToken | None = None) -> Deadline:
    return Deadline(token or CancelToken(), time.perf_counter() + seconds)


def in_background(act: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_a_pool_counts_its_connections() -> None:
    with TcpServer() as server:
        server.serve = lambda connection, number: server.stall(threading.Event())  # type: ignore[method-assign]
        pool = ConnectionPool(S3ClientConfig(max_connections=2))
        route = Route("http", *server.address)
        assert repr(pool) == "<ConnectionPool [0 active, 0 opening, 0 idle, 0 waiting, max 2]>"
        held = [pool.acquire(route, within()) for _ in range(2)]
        waiting = in_background(lambda: pool.discard(pool.acquire(route, within())))
        wait_until(lambda: repr(pool) == "<ConnectionPool [2 active, 0 opening, 0 idle, 1 waiting, max 2]>")
        pool.release(route, held[0])
        waiting.join()
        assert repr(pool) == "<ConnectionPool [1 active, 0 opening, 0 idle, 0 waiting, max 2]>"
        pool.release(route, held[1])
        assert repr(pool) == "<ConnectionPool [0 active, 0 opening, 1 idle, 0 waiting, max 2]>"
        pool.close()
        assert repr(pool) == "<ConnectionPool [0 active, 0 opening, 0 idle, 0 waiting, max 2, closed]>"


def test_a_pool_counts_connections_that_are_being_opened() -> None:
    with TcpServer() as server:
        server.serve = lambda connection, number: server.stall(release)  # type: ignore[method-assign]
        release = threading.Event()
        pool = ConnectionPool(S3ClientConfig(max_connections=2, connect_timeout=HANGS))
        errors: list[BaseException] = []

        def open_one() -> None:
            try:
                pool.acquire(Route("https", *server.address), within())
            except OSError as error:
                errors.append(error)

        opening = in_background(open_one)
        wait_until(lambda: repr(pool) == "<ConnectionPool [0 active, 1 opening, 0 idle, 0 waiting, max 2]>")
        release.set()
        opening.join()
        assert len(errors) == 1
        assert repr(pool) == "<ConnectionPool [0 active, 0 opening, 0 idle, 0 waiting, max 2]>"


def test_a_representation_takes_no_lock() -> None:
    pool, throttle = ConnectionPool(S3ClientConfig()), Throttle(10)
    throttle.refused(1, 0.0)
    with pool._lock, throttle._lock:
        assert "0 waiting" in repr(pool)
        assert "0 waiting" in repr(throttle)


def test_a_throttle_counts_permits_and_names_its_pace() -> None:
    now = [1.0]
    throttle = Throttle(10, lambda: now[0])
    assert repr(throttle) == "<Throttle [off]>"
    throttle.refused(10, 0.0)
    for _ in range(20):
        throttle.request_permit()
    assert repr(throttle) == "<Throttle [permits: 7 held, 13 waiting | <Pace [9 requests a second]>]>"


def test_a_lookup_counts_waiting_threads() -> None:
    lookup, release = SharedLookup[str]("the AWS credentials"), threading.Event()
    assert repr(lookup) == "<SharedLookup [the AWS credentials: idle]>"

    def look_up() -> str:
        assert release.wait(HANGS)
        return "found"

    waiting = in_background(lambda: lookup.join(look_up, within()))
    wait_until(lambda: repr(lookup) == "<SharedLookup [the AWS credentials: 1 waiting]>")
    release.set()
    waiting.join()
    assert repr(lookup) == "<SharedLookup [the AWS credentials: idle]>"


def test_a_request_says_how_long_it_has_waited() -> None:
    with (
        ScriptedServer(handler=lambda _: [Stall(threading.Event()), Send(response(200))]) as server,
        open_caller(server.endpoint) as caller,
    ):
        exchange = caller.send(operations.get_object("b", "k"), CancelToken(), wait=True, connect=True)
        exchange.started -= 7.0
        assert repr(exchange) == "<Exchange [GetObject s3://b/k: waiting, sent 7.0 s ago]>"
        exchange.discard()


def test_a_caller_names_what_its_requests_wait_for() -> None:
    with ScriptedServer(handler=lambda _: response(200, b"x")) as server, open_caller(server.endpoint) as caller:
        get(caller)
        assert repr(caller).startswith("<Caller [<ConnectionPool [0 active, 0 opening, 1 idle, 0 waiting, max ")
        assert repr(caller).endswith(" | <Authenticator [ready]>]>")
        (_, throttle), *_ = caller._routes._known.values()
        throttle.refused(1, 0.0)
        assert f" | {server.endpoint}: <Throttle [permits: 0 held, 0 waiting | <Pace [" in repr(caller)
