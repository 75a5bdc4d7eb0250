"""Hedged requests: the estimate and the budget as pure values, then readers of a server that is sometimes late."""

from __future__ import annotations

import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3torchconnector import S3ClientConfig, S3IterableDataset, S3Reader
from s3torchconnector._errors import S3TimeoutError
from s3torchconnector._s3client import S3Client
from s3torchconnector._types import ObjectInfo
from s3torchconnector._wire import _dialer
from s3torchconnector._wire._hedging import Hedging, Quantile
from tests.conftest import PrivateCA
from tests.reading.support import wait_until
from tests.resources import Opened
from tests.servers.http_messages import ReceivedRequest, response
from tests.servers.scripted import Close, Reply, ScriptedServer, Send, Stall
from tests.wire.support import REGION, get, open_caller

pytestmark = pytest.mark.usefixtures("keys")
TIMEOUT = 10.0  # seconds until a hang fails the test
LATE = 4.0  # seconds
OFTEN = 100  # the first response for one object in so many is late


# -- pure values ----------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.integers(0, 1000), st.sampled_from([0.8, 0.9, 0.95]), st.floats(1e-4, 1e3))
def test_the_estimate_is_near_the_quantile(seed: int, rank: float, scale: float) -> None:
    source = random.Random(seed)
    numbers = [scale * source.expovariate(1.0) for _ in range(2000)]
    estimate = Quantile(rank)
    for number in numbers:
        estimate.add(number)
    ordered = sorted(numbers)
    assert ordered[int((rank - 0.25) * len(ordered))] < estimate.value
    assert estimate.value < 2.0 * ordered[int(rank * len(ordered))]


@given(st.lists(st.floats(1e-6, 1e6), min_size=1))
def test_the_estimate_stays_among_the_numbers(numbers: list[float]) -> None:
    estimate = Quantile(0.95)
    for number in numbers:
        estimate.add(number)
    assert 0.99 * min(numbers) <= estimate.value <= 1.1 * max(numbers)


@given(st.lists(st.floats(1e-3, 1.0), max_size=300), st.integers(1, 20))
def test_the_budget_is_one_extra_request_for_twenty(seconds: list[float], asked_each_time: int) -> None:
    hedging = Hedging(True)
    spent = 0
    for number in seconds:
        hedging.note(number)
        spent += sum(hedging.spend() for _ in range(asked_each_time))
    assert spent <= 0.05 * len(seconds) + 1e-9


def test_few_extra_requests_are_saved_up() -> None:
    hedging = Hedging(True)
    for _ in range(10_000):
        hedging.note(0.01)
    assert sum(hedging.spend() for _ in range(100)) == 10


def test_the_delay_is_known_after_some_responses_and_not_short() -> None:
    hedging, off = Hedging(True), Hedging(False)
    assert hedging.delay == float("inf")
    for _ in range(200):
        hedging.note(0.001)
        off.note(0.001)
    assert (hedging.delay, off.delay) == (0.1, float("inf"))
    for _ in range(200):
        hedging.note(1.0)
    assert 2.0 < hedging.delay < 4.0


# -- readers --------------------------------------------------------------------------------------------------------


class Late:
    """Objects whose bytes are their key, over and over; one in ``OFTEN`` comes late when it is first asked for.

    Attributes:
        count, late: how many requests there were, and how many of them had a late response.
        over: set it when no late response is awaited any more.
    """

    def __init__(self, size: int = 1000, late: float = LATE) -> None:
        self.size = size
        self._seconds = late
        self.count = 0
        self.late = 0
        self.all_late = False
        self.over = threading.Event()
        self._seen: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, request: ReceivedRequest) -> bytes:
        key = request.path.rpartition("/")[2]
        with self._lock:
            is_late = self.all_late or (key.endswith("99") and key not in self._seen)
            self._seen.add(key)
            self.count += 1
            self.late += is_late
        if is_late:
            self.over.wait(self._seconds)
        body = content(key, self.size)
        headers = {"ETag": '"e"', "Content-Range": f"bytes 0-{self.size - 1}/{self.size}"}
        return response(206, body, headers)


def content(key: str, size: int = 1000) -> bytes:
    return (key.encode() * size)[:size]


def key_and_bytes(reader: S3Reader) -> tuple[str, bytes]:
    return reader.key, reader.read()


def _gaps(server: ScriptedServer, count: int, *, hedge: bool) -> list[float]:
    """Read so many objects in order; the seconds that each took."""
    uris = [f"s3://b/{number}" for number in range(count)]
    config = S3ClientConfig(hedge=hedge, max_connections=32)
    dataset = S3IterableDataset.from_objects(
        uris, region=REGION, endpoint=server.endpoint, transform=key_and_bytes, s3client_config=config
    )
    gaps: list[float] = []
    items: Iterator[tuple[str, bytes]] = iter(dataset)
    for number in range(count):
        began = time.perf_counter()
        key, data = next(items)
        gaps.append(time.perf_counter() - began)
        assert (key, data) == (str(number), content(key))
    assert next(items, None) is None
    dataset._source.client.close()
    return gaps


def test_a_late_response_in_a_hundred_is_hardly_noticed() -> None:
    count = 10 * OFTEN
    S3Client(REGION)._runtime()  # the first one of a process starts a thread that stays
    opened = Opened()
    server_side = Late()
    with ScriptedServer(handler=server_side) as server:
        gaps = sorted(_gaps(server, count, hedge=True))
        server_side.over.set()
    print(f"longest {gaps[-1]:.3f} s, late {server_side.late}, extra {server_side.count - count}")
    assert server_side.late == count / OFTEN
    # All of them, unless the machine itself was late so often that no extra request was left.
    assert sum(gap >= LATE / 2 for gap in gaps) <= server_side.late / 2
    assert 0 < server_side.count - count <= 0.05 * count
    assert opened.are_gone()


def test_without_hedging_a_late_response_is_awaited() -> None:
    late = 0.5
    server_side = Late(late=late)
    with ScriptedServer(handler=server_side) as server:
        gaps = _gaps(server, 2 * OFTEN, hedge=False)
    assert max(gaps) > late / 2
    assert server_side.count == 2 * OFTEN


def test_if_all_responses_are_late_the_budget_holds() -> None:
    server_side = Late(late=0.25)
    with ScriptedServer(handler=server_side) as server:
        config = S3ClientConfig(max_connections=32)
        with S3Client(REGION, endpoint=server.endpoint, s3client_config=config) as client:
            for number in range(80):  # on this thread, one at a time
                assert client.get_object("b", str(number)).read() == content(str(number))
            server_side.all_late = True
            began = time.perf_counter()
            for number in range(5):
                assert client.get_object("b", str(number)).read() == content(str(number))
            assert time.perf_counter() - began < TIMEOUT
    assert server_side.count <= 85 * 1.05


def test_a_read_without_look_ahead_is_hedged_too() -> None:
    server_side = Late()
    with (
        ScriptedServer(handler=server_side) as server,
        S3Client(REGION, endpoint=server.endpoint) as client,
    ):
        took = []
        for number in range(OFTEN + 10):
            began = time.perf_counter()
            assert client.get_object("b", str(number)).read() == content(str(number))
            took.append(time.perf_counter() - began)
        server_side.over.set()
    assert server_side.late == 1
    assert 0 < server_side.count - len(took) <= 0.05 * len(took)
    assert 0.1 < max(took) < LATE / 2


class SlowToOpen(ScriptedServer):
    """A handshake takes longer than a thread that must not wait tries; with ``hold``, that of the second connection
    waits for ``opened``, after setting ``arrived``."""

    def __init__(self, ca: PrivateCA, handler: Callable[[ReceivedRequest], Reply], *, hold: bool) -> None:
        super().__init__(handler=handler, tls=ca.server_context)
        self.arrived, self.opened = threading.Event(), threading.Event()
        self._hold = hold

    def _wrap(self, connection: socket.socket, tls: ssl.SSLContext) -> socket.socket:
        threading.Event().wait(0.03)
        if self._hold and self.accepted > 1:
            self.arrived.set()
            self.stall(self.opened)
        return super()._wrap(connection, tls)


def test_a_hedge_waits_for_a_connection_that_opens_slowly(
    private_ca: PrivateCA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca.bundle))
    server_side = Late()
    with (
        SlowToOpen(private_ca, server_side, hold=False) as server,
        S3Client(REGION, endpoint=server.endpoint) as client,
    ):
        for number in range(OFTEN):
            began = time.perf_counter()
            assert client.get_object("b", str(number)).read() == content(str(number))
            assert time.perf_counter() - began < LATE / 2
        server_side.over.set()
    assert server_side.late == 1
    assert 0 < server_side.count - OFTEN <= 0.05 * OFTEN
    assert server.accepted >= 2


def test_a_late_response_arrives_while_no_connection_opens(
    private_ca: PrivateCA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca.bundle))
    on_time = Late()

    def answer(request: ReceivedRequest) -> Reply:
        whole = on_time(request)
        return [Stall(server.arrived), Send(whole)] if request.path.endswith("/late") else whole

    config = S3ClientConfig(connect_timeout=TIMEOUT)
    with (
        SlowToOpen(private_ca, answer, hold=True) as server,
        S3Client(REGION, endpoint=server.endpoint, s3client_config=config) as client,
    ):
        for number in range(60):
            assert client.get_object("b", str(number)).read() == content(str(number))
        began = time.perf_counter()
        assert client.get_object("b", "late").read() == content("late")
        assert time.perf_counter() - began < TIMEOUT / 2
        assert server.arrived.is_set()
        server.opened.set()


def read_multiplexed_or_not(client: S3Client, multiplexed: bool) -> bytes:
    """The object ``k``, received by the multiplexer or by this thread."""
    if not multiplexed:
        return get(client._runtime().caller)
    reader = client.get_object("b", "k", object_info=ObjectInfo("k", "", 1000, 0))
    assert reader._start_early()
    return reader.read()


class LateOnce:
    """Responds to the first request when the test is over, to others at once."""

    def __init__(self) -> None:
        self.count = 0
        self.over = threading.Event()

    def __call__(self, request: ReceivedRequest) -> Reply:
        self.count += 1
        answer = response(200, content("k"), {"ETag": '"e"'})
        return [Stall(self.over), Close()] if self.count == 1 else answer


@pytest.mark.parametrize("multiplexed", [False, True])
def test_session_tickets_are_not_taken_for_a_late_response(
    multiplexed: bool, private_ca: PrivateCA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server with TLS 1.3 sends them on each new connection: on the first and on that of the hedge."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca.bundle))
    monkeypatch.setattr(_dialer, "_BRIEFLY", TIMEOUT)  # no slow handshake is left to a worker, which opens another
    answer = LateOnce()
    config = S3ClientConfig(read_timeout=TIMEOUT, max_attempts=1)
    with (
        ScriptedServer(handler=answer, tls=private_ca.server_context) as server,
        S3Client(REGION, endpoint=server.endpoint, s3client_config=config) as client,
    ):
        for _ in range(200):
            client._runtime().caller.hedging.note(0.001)
        began = time.perf_counter()
        assert read_multiplexed_or_not(client, multiplexed) == content("k")
        assert time.perf_counter() - began < TIMEOUT / 2
        assert (answer.count, server.accepted) == (2, 2)
        answer.over.set()


@pytest.mark.parametrize("multiplexed", [False, True])
def test_session_tickets_are_no_first_bytes(
    multiplexed: bool, private_ca: PrivateCA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca.bundle))
    late = 0.1

    def answer(request: ReceivedRequest) -> bytes:
        threading.Event().wait(late)
        return response(200, content("k"), {"ETag": '"e"'})

    with (
        ScriptedServer(handler=answer, tls=private_ca.server_context) as server,
        S3Client(REGION, endpoint=server.endpoint) as client,
    ):
        assert read_multiplexed_or_not(client, multiplexed) == content("k")
        assert (client._runtime().caller.hedging.typical or 0.0) >= late


def test_a_hedged_wait_ends_in_time_while_the_delay_grows() -> None:
    class SlowMeanwhile(Hedging):
        """Late responses to other threads come just before the second request is sent."""

        def spend(self) -> bool:
            for _ in range(200):
                self.note(60.0)
            return super().spend()

    hedging = SlowMeanwhile(True)
    for _ in range(200):
        hedging.note(0.001)
    release = threading.Event()
    config = S3ClientConfig(read_timeout=1.0, max_attempts=1)
    with (
        ScriptedServer(handler=lambda _: [Stall(release), Close()]) as server,
        open_caller(server.endpoint, config) as caller,
        ThreadPoolExecutor() as threads,
    ):
        caller.hedging = hedging
        reading = threads.submit(get, caller)
        try:
            with pytest.raises(S3TimeoutError):
                reading.result(TIMEOUT)
            assert hedging.delay > config.read_timeout
            wait_until(lambda: len(server.requests) == 2)
        finally:
            release.set()
