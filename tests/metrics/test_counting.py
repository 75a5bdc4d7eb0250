"""Each request that reaches the server is counted once, with its status and its bytes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from s3torchconnector import ObjectInfo, S3Client, S3ClientConfig, S3IterableDataset, metrics
from s3torchconnector._errors import S3Exception, S3NotFoundError
from s3torchconnector._wire import Request, read_document
from s3torchconnector._wire._operations import OPERATIONS
from s3torchconnector.testing import S3Server
from tests.metrics.support import by_method, operations_of_the_source, seen_by
from tests.reading.support import wait_until
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.proxy import CutBody, Drop, LoseResponse, RecordingProxy, Replace
from tests.servers.scripted import Reply, ScriptedServer, Send, Stall

REGION = "us-east-1"
SLOW_DOWN = Replace(s3_error(503, "SlowDown"))


def client_of(proxy: RecordingProxy) -> S3Client:
    return S3Client(REGION, endpoint=proxy.endpoint)


def test_all_kinds_of_requests_are_counted_as_the_server_sees_them(proxy: RecordingProxy, bucket: str) -> None:
    with client_of(proxy) as client:
        for key, size in (("small", 1000), ("large", 9 << 20)):
            with client.put_object(bucket, key) as writer:
                writer.write(bytes(size))
        assert len(client.get_object(bucket, "large").read()) == 9 << 20
        client.head_object(bucket, "small")
        assert sum(len(page) for page in client.list_all(bucket)) == 2
        with pytest.raises(S3NotFoundError):
            client.head_object(bucket, "none")
        with pytest.raises(S3NotFoundError):
            client.get_object(bucket, "none").read()
        client.delete_object(bucket, "small")
        found = client.metrics()
    assert by_method(found) == seen_by(proxy)
    assert found.request_count == len(proxy.exchanges)
    assert found.received_bytes == sum(each.body_bytes for each in proxy.exchanges)
    assert found.sent_bytes == sum(each.request_bytes for each in proxy.exchanges)
    assert {name: each.count for name, each in found.first_byte.items()} == {
        name: sum(statuses.values()) for name, statuses in found.requests.items()
    }
    assert (found.retries, found.throttles, found.hedges) == (0, 0, 0)


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("multiplexed", [False, True])
def test_failures_are_counted_with_their_retries(proxy: RecordingProxy, bucket: str, multiplexed: bool) -> None:
    faults = [SLOW_DOWN, Replace(s3_error(500, "InternalError")), Drop(), LoseResponse(), CutBody(100)]
    left = list(faults)
    lock = threading.Lock()

    def misbehave(request: ReceivedRequest) -> object:
        with lock:
            return left.pop() if request.method == "GET" and left else None

    count = 30
    with client_of(proxy) as client:
        for number in range(count):
            with client.put_object(bucket, f"{number:02}") as writer:
                writer.write(bytes(1000))
        client.close()  # the figures stay
        proxy.misbehave = misbehave  # type: ignore[assignment]
        if multiplexed:
            uris = [f"s3://{bucket}/{number:02}" for number in range(count)]
            dataset = S3IterableDataset.from_objects(uris, region=REGION, endpoint=proxy.endpoint)
            before = metrics.process()
            assert [len(reader.read()) for reader in dataset] == [1000] * count
            wait_until(lambda: dataset._client.metrics().connections_in_use == 0)
            found = client.metrics() + dataset._client.metrics()
            assert (metrics.process() - before).requests == dataset._client.metrics().requests
        else:
            assert [len(client.get_object(bucket, f"{number:02}").read()) for number in range(count)] == [1000] * count
            found = client.metrics()
    assert not left
    assert by_method(found) == seen_by(proxy)
    assert found.request_count == len(proxy.exchanges)
    # A connection that broke before any response is used a second time at once, on a new one: that is no retry.
    assert 3 <= found.retries <= len(faults)
    assert found.throttles == 1
    refusals = sum(len(fault.answer.partition(b"\r\n\r\n")[2]) for fault in faults if isinstance(fault, Replace))
    assert found.received_bytes == sum(each.body_bytes for each in proxy.exchanges) + refusals


@pytest.mark.parametrize("multiplexed", [False, True])
def test_hedges_are_counted_and_which_of_them_were_useful(multiplexed: bool) -> None:
    first_one, lock, over = set[str](), threading.Lock(), threading.Event()

    def answer(request: ReceivedRequest) -> Reply:
        with lock:
            is_late = request.path.endswith("late") and request.path not in first_one
            first_one.add(request.path)
        whole = response(206, b"12345", {"ETag": '"e"', "Content-Range": "bytes 0-4/5"})
        return [Stall(over), Send(whole)] if is_late else whole

    with ScriptedServer(handler=answer) as server, S3Client(REGION, endpoint=server.endpoint) as client:
        for _ in range(200):
            client._runtime().caller.hedging.note(0.001)
        reader = client.get_object("b", "late", object_info=ObjectInfo("late", "", 5, 0))
        if multiplexed:
            assert reader._start_early()
        assert reader.read() == b"12345"
        found = client.metrics()
        over.set()
    assert (found.hedges, found.hedges_won) == (1, 1)
    assert found.requests == {"GetObject": {0: 1, 206: 1}}
    assert found.request_count == len(server.requests)
    assert found.retries == 0
    # From the first time that it was sent.
    assert found.first_byte["GetObject"].quantile(0.5) > 0.1


def test_clients_and_threads_add_up_in_the_process(s3_server: S3Server, bucket: str) -> None:
    before = metrics.process(children=False)
    clients = [S3Client(REGION), S3Client(REGION)]
    with clients[0].put_object(bucket, "k") as writer:
        writer.write(b"12345")

    def read(number: int) -> None:
        for _ in range(25):
            assert clients[number % 2].get_object(bucket, "k").read() == b"12345"

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(read, range(8)))
    of_clients = [client.metrics() for client in clients]
    assert [sum(each.requests["GetObject"].values()) for each in of_clients] == [100, 100]
    # Both use the same connections, which count once.
    assert of_clients[0].connections_idle == of_clients[1].connections_idle > 0
    for client in clients:
        client.close()
    clients.clear()
    since = metrics.process(children=False) - before
    assert since.requests == {"GetObject": {200: 200}, "PutObject": {200: 1}}
    assert since.received_bytes == 1000


def test_memory_and_connections_are_current(s3_server: S3Server, bucket: str) -> None:
    config = S3ClientConfig(memory_budget=32 << 20, max_connections=3)
    with S3Client(REGION, s3client_config=config) as client:
        assert client.metrics().memory_limit == 0  # nothing is open
        writer = client.put_object(bucket, "k")
        writer.write(bytes(1 << 20))
        during = client.metrics()
        writer.close()
        after = client.metrics()
    assert (during.memory_limit, after.memory_limit) == (32 << 20, 32 << 20)
    assert during.memory_used > 0 == after.memory_used
    assert (after.connections_in_use, after.connections_idle) == (0, 1)


def test_a_request_that_cannot_be_sent_is_none(bucket: str) -> None:
    config = S3ClientConfig(max_attempts=1)
    with S3Client(REGION, endpoint="http://127.0.0.1:9", s3client_config=config) as client:
        with pytest.raises(S3Exception):
            client.head_object(bucket, "k")
        assert client.metrics().requests == {}


def test_all_operations_can_be_counted(s3_server: S3Server, bucket: str) -> None:
    assert operations_of_the_source() == set(OPERATIONS)
    with S3Client(REGION) as client:
        client._runtime().caller.call(Request("NewOperation", "HEAD", bucket), read_document)
        assert client.metrics().requests == {"other": {200: 1}}
