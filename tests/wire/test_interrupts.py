"""An interrupt (Ctrl-C) at any moment of a request returns its permit for a connection."""

from __future__ import annotations

import itertools
import threading

import pytest

from s3torchconnector import S3ClientConfig
from s3torchconnector._wire._exchange import Exchange
from s3torchconnector._wire._pool import ConnectionPool
from tests.interrupts import Interrupts, interrupted_at
from tests.reading.support import wait_until
from tests.servers.http_messages import ReceivedRequest, response
from tests.servers.scripted import Close, Reply, ScriptedServer, Stall
from tests.wire.support import get, open_caller

pytestmark = pytest.mark.usefixtures("keys")
ONE = S3ClientConfig(max_connections=1, max_attempts=1, operation_timeout=10.0)
BODY = bytes(100)


def test_an_interrupt_while_waiting_returns_the_permit() -> None:
    release = threading.Event()
    with Interrupts() as interrupts:

        def answer(request: ReceivedRequest) -> Reply:
            if release.is_set():
                return response(200, BODY)
            wait_until(lambda: interrupts.strike_in("poll_until"))
            return [Stall(release), Close()]

        with ScriptedServer(handler=answer) as server, open_caller(server.endpoint, ONE) as caller:
            with pytest.raises(KeyboardInterrupt):
                get(caller)
            release.set()
            assert get(caller) == BODY
            assert caller._pool.in_use == 0


# The functions that acquire a connection, use it and wait.
FUNCTIONS = (
    ConnectionPool.acquire,
    ConnectionPool._pop_idle,
    ConnectionPool._is_usable,
    Exchange.__init__,
    Exchange._send,
    Exchange._await_response,
    Exchange._first_begun,
)


def test_an_interrupt_at_any_moment_returns_the_permit() -> None:
    with ScriptedServer(handler=lambda _: response(200, BODY)) as server, open_caller(server.endpoint, ONE) as caller:
        for moment in itertools.count(1):
            assert get(caller) == BODY  # so that a connection is idle
            try:
                with interrupted_at(moment, *FUNCTIONS):
                    assert get(caller) == BODY
                break
            except KeyboardInterrupt:
                assert caller._pool.in_use == 0, moment
                assert not caller._pool._open.difference(caller._pool._idle), moment
        assert moment > 10
