"""No operation outlasts ``operation_timeout``, whatever the server does, and nothing waits forever for a connection.

The servers never respond, or trickle: they send a byte now and then, so that no silence lasts for ``read_timeout``.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import pytest

from s3torchconnector import S3ClientConfig, S3IterableDataset, S3MapDataset, S3ReaderConstructor, S3Writer
from s3torchconnector._config import MIB
from s3torchconnector._errors import S3ProtocolError, S3ServiceError, S3ThrottledError, S3TimeoutError
from s3torchconnector._s3client import S3Client
from s3torchconnector._wire import CancelledByCaller, CancelToken, operations
from s3torchconnector._wire._caller import Caller
from s3torchconnector._wire._connection import Connection
from s3torchconnector._wire._deadline import Deadline
from s3torchconnector._wire._dialer import Route
from s3torchconnector._wire._pool import ConnectionPool, PoolIsFull
from tests.reading.support import VirtualObject, client_of, content, open_object
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.scripted import Close, Reply, ScriptedServer, Send, Stall
from tests.wire.support import REGION, get, in_turn, open_caller

pytestmark = pytest.mark.usefixtures("keys")
TIMEOUT = 0.3
SOON = 0.1  # where the first request is the one that takes too long, and no other has to succeed before
HANGS = 10.0  # seconds until a hang fails the test
GRACE = 10.0  # seconds that a loaded machine may take beyond it; other timeouts are 30 s
CONFIG = S3ClientConfig(operation_timeout=TIMEOUT, part_size=5 * MIB)
CREATED = response(200, b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
PAGE = response(
    200,
    b"<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
    b"<Contents><Key>a</Key><Size>1</Size><ETag>e</ETag><LastModified>2026-01-01T00:00:00Z</LastModified></Contents>"
    b"</ListBucketResult>",
)


class Trickle(Send):
    """A byte every 20 ms, as long as the client reads."""

    def __init__(self, head: bytes) -> None:
        self._head = head

    @property
    def pieces(self) -> Iterator[bytes]:  # type: ignore[override]
        yield self._head
        for byte in repeat(b"0"):
            threading.Event().wait(0.02)
            yield byte


LONG = response(200, headers={"Content-Length": "1000000", "ETag": '"e"', "Content-Range": "bytes 0-999999/1000000"})
BAD: dict[str, Callable[[], Reply]] = {
    "never responds": lambda: [Stall(threading.Event())],
    "trickles a head": lambda: [Trickle(b"HTTP/1.1 200 OK\r\nx-amz-note: ")],
    "trickles a body": lambda: [Trickle(LONG)],
    "trickles a large body": lambda: [Trickle(LONG.replace(b"1000000", b"4000000").replace(b"999999", b"3999999"))],
    "trickles an error": lambda: [Trickle(LONG.replace(b"200 OK", b"500 NO"))],
    "trickles chunks": lambda: [Trickle(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nf4240\r\n")],
}
WITH_A_BODY = ["ListObjectsV2", "CompleteMultipartUpload", "CopyObject"]  # whose responses are read to the end


def _write(client: S3Client, size: int = 1) -> None:
    with S3Writer(client.put_object("b", "k")) as writer:
        writer.write(bytes(size))


def _drop_upload(client: S3Client) -> None:
    writer = S3Writer(client.put_object("b", "k"))
    writer.write(bytes(11 * MIB))
    writer.abort()


OPERATIONS: dict[str, Callable[[S3Client], object]] = {
    "GetObject": lambda client: client.get_object("b", "k").read(),
    "HeadObject": lambda client: client.head_object("b", "k"),
    "PutObject": _write,
    "CopyObject": lambda client: client.copy_object("b", "k", "b", "l"),
    "DeleteObject": lambda client: client.delete_object("b", "k"),
    "ListObjectsV2": lambda client: list(client.list_objects("b")),
    "ListObjectsV2 in parallel": lambda client: list(client.list_all("b")),
    "CreateMultipartUpload": lambda client: _write(client, 11 * MIB),
    "UploadPart": lambda client: _write(client, 11 * MIB),
    "CompleteMultipartUpload": lambda client: _write(client, 11 * MIB),
    "AbortMultipartUpload": lambda client: client.abort_multipart_upload("b", "k", "u"),
    "ListMultipartUploads": lambda client: list(client.list_multipart_uploads("b")),
}


def _operation(request: ReceivedRequest) -> str:
    """The operation of a request, if it is one of these tests'."""
    query = request.query
    if "uploadId" in query:
        names = {"PUT": "UploadPart", "POST": "CompleteMultipartUpload", "DELETE": "AbortMultipartUpload"}
        return names[request.method]
    if "uploads" in query:
        return "CreateMultipartUpload" if request.method == "POST" else "ListMultipartUploads"
    if "list-type" in query:
        return "ListObjectsV2"
    if "x-amz-copy-source" in request.headers:
        return "CopyObject"
    return {"GET": "GetObject", "HEAD": "HeadObject", "PUT": "PutObject", "DELETE": "DeleteObject"}[request.method]


def _server(ill: str, fault: Callable[[], Reply], healthy: int = 0) -> ScriptedServer:
    """Sends good responses to all operations except ``ill``, and to that one ``healthy`` times."""
    left = [PAGE] * healthy
    good = {"CreateMultipartUpload": CREATED, "UploadPart": response(200, headers={"ETag": '"e"'})}

    def answer(request: ReceivedRequest) -> Reply:
        operation = _operation(request)
        if operation == ill:
            return left.pop() if left else fault()
        return good.get(operation, response(204))

    return ScriptedServer(handler=answer)


def _ends_in_time(
    act: Callable[[], object], name: str, operations: int = 1, timeout: float = TIMEOUT
) -> S3TimeoutError:
    began = time.monotonic()
    said = rf"operation_timeout={re.escape(str(timeout))} s.*raise operation_timeout"
    with pytest.raises(S3TimeoutError, match=said) as caught:
        act()
    assert time.monotonic() - began < operations * timeout + GRACE
    assert caught.value.operation == name
    assert re.search(r"after [0-9.]+ s", str(caught.value))
    return caught.value


@pytest.mark.parametrize(
    ("operation", "fault"),
    [
        *((operation, fault) for operation in OPERATIONS for fault in ("never responds", "trickles a head")),
        *((operation, fault) for operation in WITH_A_BODY for fault in list(BAD)[2:]),
        ("GetObject", "trickles a body"),
        ("PutObject", "trickles an error"),
    ],
)
def test_each_operation_ends_in_time(operation: str, fault: str) -> None:
    name = operation.partition(" ")[0]
    timeout = TIMEOUT if name in ("UploadPart", "CompleteMultipartUpload") else SOON
    config = S3ClientConfig(operation_timeout=timeout, part_size=5 * MIB)
    with (
        _server(name, BAD[fault]) as server,
        S3Client(REGION, endpoint=server.endpoint, s3client_config=config) as client,
    ):
        # A failed upload is aborted, and a failed completion is looked at: operations of their own.
        error = _ends_in_time(lambda: OPERATIONS[operation](client), name, operations=2, timeout=timeout)
        assert (error.bucket, error.attempts) == ("b", 1)


@pytest.mark.parametrize("fault", ["never responds", "trickles a body"])
@pytest.mark.parametrize("kind", [S3IterableDataset, S3MapDataset])
def test_iterating_a_dataset_ends_in_time(kind: type[S3IterableDataset | S3MapDataset], fault: str) -> None:
    with _server("GetObject", BAD[fault]) as server:
        uris = [f"s3://b/{number}" for number in range(20)]
        dataset = kind.from_objects(uris, region=REGION, endpoint=server.endpoint, s3client_config=CONFIG,
                                    transform=lambda reader: reader.read())  # fmt: skip
        if isinstance(dataset, S3IterableDataset):
            _ends_in_time(lambda: list(dataset), "GetObject")
        else:
            _ends_in_time(lambda: dataset[0], "GetObject")


@pytest.mark.parametrize("kind", [S3IterableDataset, S3MapDataset])
def test_a_continued_listing_ends_in_time(kind: type[S3IterableDataset | S3MapDataset]) -> None:
    with _server("ListObjectsV2", BAD["never responds"], healthy=1) as server:
        dataset = kind.from_prefix("s3://b/", region=REGION, endpoint=server.endpoint, s3client_config=CONFIG)
        _ends_in_time(lambda: [reader.key for reader in dataset], "ListObjectsV2", operations=2)


def test_pauses_between_attempts_count() -> None:
    config = S3ClientConfig(operation_timeout=TIMEOUT, max_attempts=1000)
    with ScriptedServer(handler=in_turn(s3_error(500, "InternalError"))) as server:
        caller = Caller(REGION, server.endpoint, config, "test/1")
        _ends_in_time(lambda: get(caller), "GetObject")
        caller.close()
        assert len(server.requests) >= 2


@pytest.mark.usefixtures("short_pauses")
def test_the_error_names_what_the_server_said_before_it_was_silent() -> None:
    config = S3ClientConfig(operation_timeout=1.5)
    with ScriptedServer(handler=in_turn(s3_error(500, "InternalError"), [Stall(threading.Event())])) as server:
        caller = Caller(REGION, server.endpoint, config, "test/1")
        error = _ends_in_time(lambda: get(caller), "GetObject", timeout=1.5)
        assert "InternalError" in str(error)
        assert isinstance(error.__cause__, S3ServiceError)
        assert error.attempts == 2
        caller.close()


def test_endless_slow_down_ends_in_a_timeout() -> None:
    with ScriptedServer(handler=in_turn(s3_error(503, "SlowDown"))) as server:
        caller = Caller(REGION, server.endpoint, CONFIG, "test/1")
        error = _ends_in_time(lambda: get(caller), "GetObject")
        assert "SlowDown" in str(error)
        assert isinstance(error.__cause__, S3ThrottledError)
        caller.close()


def test_a_timeout_below_the_kernels_resolution_still_ends() -> None:
    release = threading.Event()
    config = S3ClientConfig(read_timeout=1e-7, max_attempts=1)
    with (
        ScriptedServer(handler=lambda _: [Stall(release), Close()]) as server,
        open_caller(server.endpoint, config) as caller,
        ThreadPoolExecutor() as threads,
    ):
        asking = threads.submit(caller.call, operations.head_object("b", "k"), lambda response: None)
        try:
            with pytest.raises(S3TimeoutError):
                asking.result(HANGS)
        finally:
            release.set()


def test_time_in_which_the_program_does_not_read_does_not_count() -> None:
    token = CancelToken()
    deadline = Deadline(token, time.perf_counter() - 1.0)
    with pytest.raises(S3TimeoutError):
        deadline.check()
    token.paused += 100.0
    deadline.check()
    assert 98 < deadline.left() <= 99


def test_a_program_may_take_longer_between_two_reads() -> None:
    size = 16 * MIB
    with ScriptedServer(handler=VirtualObject(size)) as server:
        settings = {"operation_timeout": TIMEOUT, "memory_budget": 6 * MIB, "max_attempts": 1}
        with client_of(server.endpoint, **settings) as client:
            reader = open_object(client, "b", reader_constructor=S3ReaderConstructor.sequential())
            for start in range(0, size, MIB):
                assert reader.read(MIB) == content(start, start + MIB)
                if start in (4 * MIB, 8 * MIB):  # the memory budget for reading ahead is full
                    threading.Event().wait(2 * TIMEOUT)


def test_a_connection_does_not_keep_its_last_users_deadline() -> None:
    slow = threading.Event()
    config = S3ClientConfig(operation_timeout=TIMEOUT, read_timeout=5.0)
    with ScriptedServer(handler=lambda request: [Send(response(200, b"x"))]) as server:
        caller = Caller(REGION, server.endpoint, config, "test/1")
        for _ in range(4):  # together longer than one may take
            assert get(caller) == b"x"
            slow.wait(TIMEOUT / 3)
        assert server.accepted == 1
        caller.close()


def test_endless_interim_responses_are_refused() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    with (
        ScriptedServer(handler=lambda request: interim * 1000) as server,
        open_caller(server.endpoint) as caller,
        pytest.raises(S3ProtocolError, match="more than 16 interim"),
    ):
        get(caller)


def test_some_interim_responses_are_skipped() -> None:
    answer = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 16 + response(200, b"x")
    with ScriptedServer(handler=lambda request: answer) as server, open_caller(server.endpoint) as caller:
        assert get(caller) == b"x"


# -- waiting for a connection ---------------------------------------------------------------------------------------


def _full_pool(server: ScriptedServer) -> tuple[ConnectionPool, Route, Connection]:
    pool = ConnectionPool(S3ClientConfig(max_connections=1))
    route = Route("http", *server.address)
    return pool, route, pool.acquire(route, _deadline(10.0))


def _deadline(seconds: float, token: CancelToken | None = None) -> Deadline:
    return Deadline(token or CancelToken(), time.perf_counter() + seconds)


def test_waiting_for_a_connection_ends_in_time_without_a_permit() -> None:
    with ScriptedServer([[Stall(threading.Event())]] * 3) as server:
        pool, route, held = _full_pool(server)
        with pytest.raises(S3TimeoutError, match="max_connections=1 connections were in use"):
            pool.acquire(route, _deadline(0.05))
        pool.release(route, held)
        assert pool.in_use == 0
        assert pool.acquire(route, _deadline(0.05)) is held
        pool.discard(held)


def test_waiting_for_a_connection_is_cancelled() -> None:
    token = CancelToken()
    outcome: list[BaseException] = []
    with ScriptedServer([[Stall(threading.Event())]] * 3) as server:
        pool, route, held = _full_pool(server)

        def acquire() -> None:
            try:
                pool.acquire(route, _deadline(60.0, token))
            except CancelledByCaller as error:
                outcome.append(error)

        thread = threading.Thread(target=acquire)
        thread.start()
        token.cancel()  # before or while it waits
        thread.join(10)
        assert len(outcome) == 1
        pool.discard(held)
        assert pool.in_use == 0


def test_the_longest_waiter_gets_the_connection() -> None:
    with ScriptedServer([[Stall(threading.Event())]] * 3) as server:
        pool, route, held = _full_pool(server)
        waiters = [pool._queue.join() for _ in range(3)]
        for count in range(3):
            assert [waiter.admitted for waiter in waiters] == [True] * count + [False] * (3 - count)
            pool.release(route, held)
            with pytest.raises(PoolIsFull):  # arriving at the right moment overtakes nobody
                pool.acquire(route, _deadline(60.0)._replace(wait=False))
            waiters[count].wait(_deadline(0.0))
        pool._release_permit()
        assert pool.in_use == 0
        pool.close()


def test_the_call_says_which_operation_got_no_connection() -> None:
    config = S3ClientConfig(operation_timeout=TIMEOUT, max_connections=1)
    with ScriptedServer(handler=lambda request: [Stall(threading.Event())]) as server:
        caller = Caller(REGION, server.endpoint, config, "test/1")
        exchange = caller.send(operations.get_object("b", "first"), CancelToken(), wait=True, connect=True)
        _ends_in_time(lambda: get(caller), "GetObject")
        exchange.discard()
        caller.close()
