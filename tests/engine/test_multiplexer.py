"""The multiplexer waits for no single response: one that stalls, or is requested again, delays no other.

The server answers object 0 first, in a way that does not go on, and the others only then; so the multiplexer meets the
one that stalls before any other.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from s3torchconnector import S3Reader
from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer.engine._multiplexer import Multiplexer
from s3torchconnector._transfer.engine._poll_loop import PollLoop
from s3torchconnector._transfer.engine._workers import Workers
from s3torchconnector._types import ObjectInfo
from s3torchconnector._wire import Exchange, Hedging, PoolIsFull
from s3torchconnector._wire._polling import PipeWakeup
from tests.datasets.support import TIMEOUT, config
from tests.interrupts import interrupted_at
from tests.reading.support import wait_until
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.scripted import Reply, ScriptedServer, Send, Stall, Step

COUNT = 8
BODY = bytes(range(250)) * 160
SIZE = len(BODY)
FOUND = {"Content-Range": f"bytes 0-{SIZE - 1}/{SIZE}", "ETag": '"e"'}
WHOLE = response(206, BODY, FOUND)
CHUNKS = f"{SIZE:x}\r\n".encode() + BODY + b"\r\n0\r\n\r\n"
CHUNKED = response(206, CHUNKS, {**FOUND, "Transfer-Encoding": "chunked"})
SLOW_DOWN = s3_error(503, "SlowDown")
ERROR = s3_error(500, "InternalError")  # after SlowDown, the next request may have to wait until others are done


def cut(place: int, reply: bytes) -> list[bytes]:
    return [reply[:place], reply[place:]]


# Replies to requests for object 0: whole, or in two pieces between which the server stalls.
STALLS: dict[str, list[list[bytes]]] = {
    "before the head": [cut(0, WHOLE)],
    "in the head": [cut(20, WHOLE)],
    "after the head": [cut(-SIZE, WHOLE)],
    "in the body": [cut(-1000, WHOLE)],
    "in a chunked body": [cut(-1000, CHUNKED)],
    "in what follows an error": [[ERROR], cut(0, WHOLE)],
    "in the document of an error": [cut(-20, SLOW_DOWN), [WHOLE]],
}


class StallingServer(ScriptedServer):
    """Sends ``replies`` for object ``0``, in order; for others once object 0 stalls."""

    def __init__(self, replies: Sequence[list[bytes]]) -> None:
        super().__init__(handler=self._reply)
        self.release = threading.Event()
        self.stalled = threading.Event()
        self._replies = list(replies)

    def _reply(self, request: ReceivedRequest) -> Reply | Iterator[Step]:
        if request.path.endswith("/0"):
            return self._steps(*self._replies.pop(0))
        self.stall(self.stalled)
        return WHOLE

    def _steps(self, first: bytes, rest: bytes = b"") -> Iterator[Step]:
        yield Send(first)
        if rest:
            self.stalled.set()
            yield Stall(self.release)
            yield Send(rest)


def readers_of(client: S3Client) -> list[S3Reader]:
    """On their way, the first of them first."""
    readers = [client.get_object("b", f"{i}", object_info=ObjectInfo(f"{i}", "", SIZE, 0)) for i in range(COUNT)]
    for reader in readers:
        reader._start_early()
    return readers


@pytest.mark.parametrize("stall", STALLS)
def test_a_stalled_response_delays_no_other_object(stall: str) -> None:
    with (
        StallingServer(STALLS[stall]) as server,
        S3Client("us-east-1", endpoint=server.endpoint, s3client_config=config(max_attempts=3)) as client,
        ThreadPoolExecutor() as threads,
    ):
        try:
            first, *others = readers_of(client)
            reading = [threads.submit(reader.read) for reader in others]
            assert [each.result(TIMEOUT) for each in reading] == [BODY] * len(others)
            assert not server.release.is_set()
        finally:
            server.release.set()
            server.stalled.set()  # if that has failed, so that nothing waits for it
        assert first.read() == BODY


def test_an_unexpected_error_costs_no_other_object(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        ScriptedServer(handler=lambda _: WHOLE) as server,
        S3Client("us-east-1", endpoint=server.endpoint, s3client_config=config()) as client,
    ):
        caller = client._runtime().caller
        begin, errors = caller.send, [ZeroDivisionError()]

        def stumble(*arguments: Any, **options: Any) -> Exchange:
            if errors:
                raise errors.pop()
            return begin(*arguments, **options)

        monkeypatch.setattr(caller, "send", stumble)
        assert [reader.read() for reader in readers_of(client)] == [BODY] * COUNT
        assert not errors


def test_a_hedge_that_fails_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the error is: the first response is received, and so is what is read afterwards."""
    release, failed = threading.Event(), threading.Event()

    def reply(request: ReceivedRequest) -> Reply:
        return [Stall(release), Send(WHOLE)] if request.path.endswith("/late") else WHOLE

    def stumble(exchange: Exchange) -> int | None:
        failed.set()
        raise ZeroDivisionError

    with (
        ScriptedServer(handler=reply) as server,
        S3Client("us-east-1", endpoint=server.endpoint, s3client_config=config()) as client,
        ThreadPoolExecutor() as threads,
    ):
        try:
            for _ in range(10):  # until it is known what is late
                for reader in readers_of(client):
                    assert threads.submit(reader.read).result(TIMEOUT) == BODY
            monkeypatch.setattr(Exchange, "hedge", stumble)
            late = client.get_object("b", "late", object_info=ObjectInfo("late", "", SIZE, 0))
            late._start_early()
            assert failed.wait(TIMEOUT)
            for reader in readers_of(client):
                assert threads.submit(reader.read).result(TIMEOUT) == BODY
        finally:
            release.set()
        assert threads.submit(late.read).result(TIMEOUT) == BODY


STEPS = [
    (Exchange, "keep_connection"),
    (Exchange, "fileno"),
    (PollLoop, "receive"),
    (PollLoop, "send"),
    (PollLoop, "_hedge"),
    (PollLoop, "_forget"),
    (PollLoop, "_notify"),
    (Multiplexer, "_next"),
]


@pytest.mark.parametrize(("owner", "name"), STEPS, ids=lambda value: getattr(value, "__name__", value))
def test_an_error_anywhere_in_the_multiplexer_loses_no_request(
    monkeypatch: pytest.MonkeyPatch, owner: type[Any], name: str
) -> None:
    with (
        ScriptedServer(handler=lambda _: WHOLE) as server,
        S3Client("us-east-1", endpoint=server.endpoint, s3client_config=config()) as client,
        ThreadPoolExecutor() as threads,
    ):
        step, calls, errors = getattr(owner, name), itertools.count(), []

        def stumble(*arguments: Any, **options: Any) -> Any:
            if next(calls) in (2, 5):
                errors.append(ZeroDivisionError())
                raise errors[-1]
            return step(*arguments, **options)

        monkeypatch.setattr(owner, name, stumble)
        for _ in range(3):
            for reader in readers_of(client):
                with contextlib.suppress(ZeroDivisionError):
                    assert threads.submit(reader.read).result(TIMEOUT) == BODY
        monkeypatch.undo()
        assert errors
        assert [threads.submit(reader.read).result(TIMEOUT) for reader in readers_of(client)] == [BODY] * COUNT
        wait_until(lambda: client._runtime().caller._pool.in_use == 0)


def test_a_job_that_raises_costs_no_thread() -> None:
    workers, done = Workers(1), threading.Event()
    workers.submit(lambda: 1 // 0)
    workers.submit(done.set)
    assert done.wait(TIMEOUT)
    closing = threading.Thread(target=workers.close, daemon=True)
    closing.start()
    closing.join(TIMEOUT)
    assert not closing.is_alive()


def test_the_multiplexer_uses_connections_that_others_release(monkeypatch: pytest.MonkeyPatch) -> None:
    release = {"stalls": threading.Event(), "other": threading.Event()}

    def reply(request: ReceivedRequest) -> Reply:
        stall = release.get(request.path.rpartition("/")[2])
        return [Stall(stall), Send(WHOLE)] if stall else WHOLE

    with (
        ScriptedServer(handler=reply) as server,
        S3Client("us-east-1", endpoint=server.endpoint, s3client_config=config(max_connections=2)) as client,
        ThreadPoolExecutor() as threads,
    ):
        caller = client._runtime().caller
        begin, refused = caller.send, threading.Event()

        def note(*arguments: Any, **options: Any) -> Exchange:
            try:
                return begin(*arguments, **options)
            except PoolIsFull:
                refused.set()
                raise

        monkeypatch.setattr(caller, "send", note)
        stalls, other, quick = (
            client.get_object("b", key, object_info=ObjectInfo(key, "", SIZE, 0))
            for key in ("stalls", "other", "quick")
        )
        try:
            stalls._start_early()
            reading_other = threads.submit(other.read)  # by a thread of its own
            wait_until(lambda: len(server.requests) == 2)
            quick._start_early()
            assert refused.wait(TIMEOUT)
            release["other"].set()
            assert reading_other.result(TIMEOUT) == BODY
            assert threads.submit(quick.read).result(TIMEOUT) == BODY
        finally:
            for stall in release.values():
                stall.set()
        assert stalls.read() == BODY


def test_without_a_thread_every_waiting_reader_gets_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        ScriptedServer(handler=lambda _: WHOLE) as server,
        S3Client("us-east-1", endpoint=server.endpoint, s3client_config=config()) as client,
        ThreadPoolExecutor() as threads,
    ):
        first, second = (client.get_object("b", f"{i}", object_info=ObjectInfo("", "", SIZE, 0)) for i in range(2))
        runtime = client._runtime()
        client.close()
        run, asked, go_on = runtime.workers.submit, threading.Event(), threading.Event()

        def run_later(job: Callable[[], object]) -> None:
            asked.set()
            assert go_on.wait(TIMEOUT)
            run(job)

        monkeypatch.setattr(runtime.workers, "submit", run_later)
        starting = threads.submit(first._start_early)
        assert asked.wait(TIMEOUT)
        second._start_early()  # while the first is about to be refused a thread
        reading = threads.submit(second.read)
        go_on.set()
        for each in (starting, reading):
            with pytest.raises(RuntimeError, match="the S3 client is closed"):
                each.result(TIMEOUT)
        assert runtime.budget.taken == 0


_clock = itertools.count()


class Going:
    """A request with a socket of its own; also the exchange that the multiplexer waits for.

    Args:
        readable: whether something is there to be received, always.
        over: whether it has ended, asked whenever something was received.
    """

    def __init__(self, readable: bool, over: Callable[[], bool]) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._over = over
        self.aborted = False
        self.is_responding = False
        self.done = threading.Event()
        self.started = 0.0
        if readable:
            self._theirs.send(b"x")

    def connect(self) -> None:
        raise AssertionError("begin needs no connection")

    def send(self, *, wait: bool, connect: bool) -> Going:
        self.started = time.perf_counter()
        return self

    def receive(self, scratch: bytearray) -> bool:
        over = self._over()
        self.over_at = next(_clock) if over else None
        return over

    def notify(self) -> None:
        assert self.over_at is not None
        assert not self.done.is_set(), "notified twice"
        self.notified_at = next(_clock)
        self.done.set()

    def has_begun(self, descriptor: int) -> bool:
        return True

    def keep_connection(self, descriptor: int) -> None:
        self.is_responding = True

    def fileno(self) -> int:
        return self._ours.fileno()

    def abort(self) -> None:
        self.aborted = True
        self._theirs.close()

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()


def test_a_silent_request_is_aborted_while_others_go_on() -> None:
    silent = Going(readable=False, over=lambda: True)
    steps = itertools.count()
    busy = Going(readable=True, over=lambda: silent.aborted or next(steps) > 200_000)
    workers = Workers(1)
    with contextlib.closing(silent), contextlib.closing(busy), contextlib.closing(workers):
        multiplexer = Multiplexer(workers, most=2, silence=0.05, hedging=Hedging(False))
        multiplexer.submit(silent)
        multiplexer.submit(busy)
        assert busy.done.wait(TIMEOUT)
        assert silent.aborted


def test_a_finished_request_is_freed_while_another_is_silent() -> None:
    silent, quick = Going(readable=False, over=lambda: True), Going(readable=True, over=lambda: True)
    workers = Workers(1)
    with contextlib.closing(workers), contextlib.closing(silent):
        multiplexer = Multiplexer(workers, most=2, silence=30.0, hedging=Hedging(False))
        multiplexer.submit(silent)
        multiplexer.submit(quick)
        assert quick.done.wait(TIMEOUT)
        quick.close()
        gone = weakref.ref(quick)
        del quick
        try:
            wait_until(lambda: gone() is None)
        finally:
            silent.abort()
        assert silent.done.wait(TIMEOUT)


@pytest.mark.parametrize("has_idle_thread", [False, True])
def test_interrupting_submit_stops_no_other_request(has_idle_thread: bool) -> None:
    functions = (Multiplexer.submit, Multiplexer._start, Workers.submit, PollLoop.__init__, PipeWakeup.__init__)
    for moment in itertools.count(1):
        workers = Workers(2)
        first, second = Going(True, lambda: True), Going(True, lambda: True)
        multiplexer = Multiplexer(workers, most=2, silence=30.0, hedging=Hedging(False))
        if has_idle_thread:
            workers.submit(int)
            wait_until(lambda workers=workers: bool(workers._idle))
        interrupted = False
        try:
            with interrupted_at(moment, *functions):
                multiplexer.submit(first)
        except KeyboardInterrupt:
            interrupted = True
        multiplexer.submit(second)
        assert second.done.wait(TIMEOUT), moment
        first.close()
        second.close()
        workers.close()
        if not interrupted:
            break
    assert moment > 10


def test_readers_are_notified_of_several_requests_at_a_time() -> None:
    workers = Workers(1)
    with contextlib.ExitStack() as stack:
        stack.callback(workers.close)
        requests = [stack.enter_context(contextlib.closing(Going(True, lambda: True))) for _ in range(40)]
        multiplexer = Multiplexer(workers, most=len(requests), silence=30.0, hedging=Hedging(False))
        for request in requests:
            multiplexer.submit(request)
        assert all(request.done.wait(TIMEOUT) for request in requests)
    for request in requests:
        meanwhile = [each for each in requests if request.over_at < each.over_at < request.notified_at]
        assert len(meanwhile) < 16
