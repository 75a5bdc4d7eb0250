"""``S3Client`` as a value, and its use by threads and across forks."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Iterator

import pytest

from s3torchconnector import S3Checkpoint, S3ClientConfig, S3Exception
from s3torchconnector._errors import S3ConfigurationError
from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer import leave_to_collector
from s3torchconnector.testing import S3Server
from tests.resources import Opened, settings_of_its_own
from tests.servers.proxy import RecordingProxy

_REGION = "us-east-1"


@pytest.fixture
def client(s3_server: S3Server) -> Iterator[S3Client]:
    with S3Client(_REGION, endpoint=s3_server.endpoint) as client:
        yield client


def put(client: S3Client, bucket: str, key: str, data: bytes) -> None:
    stream = client.put_object(bucket, key)
    stream.write(data)
    stream.close()


def get(client: S3Client, bucket: str, key: str) -> bytes:
    with client.get_object(bucket, key) as reader:
        return reader.read()


# -- clients as values --------------------------------------------------------------------------------------------


def test_pickles_as_its_configuration(client: S3Client, bucket: str, s3_server: S3Server) -> None:
    config = S3ClientConfig(part_size=6 << 20, max_attempts=2)
    original = S3Client(_REGION, endpoint=s3_server.endpoint, user_agent="mine/1", s3client_config=config)
    put(original, bucket, "key", b"12345")  # connections are open
    copy = pickle.loads(pickle.dumps(original))
    assert (copy.region, copy.endpoint, copy.s3client_config) == (_REGION, s3_server.endpoint, config)
    assert copy.user_agent == original.user_agent
    assert copy.user_agent.startswith("mine/1 s3torchconnector/2.0.0")
    assert get(copy, bucket, "key") == b"12345"
    assert copy._runtime() is not original._runtime()
    for each in (original, copy):
        each.close()


def test_a_checkpoint_pickles(bucket: str, s3_server: S3Server) -> None:
    original = S3Checkpoint(_REGION, s3_server.endpoint, S3ClientConfig(max_attempts=2))
    with original.writer(f"s3://{bucket}/key") as writer:
        writer.write(b"12345")
    copy = pickle.loads(pickle.dumps(original))
    assert (copy.region, copy.endpoint) == (_REGION, s3_server.endpoint)
    with copy.reader(f"s3://{bucket}/key") as reader:
        assert reader.read() == b"12345"


def test_a_closed_client_can_be_used_again(client: S3Client, bucket: str) -> None:
    put(client, bucket, "key", b"12345")
    client.close()
    client.close()
    assert get(client, bucket, "key") == b"12345"
    with client as entered:
        assert entered is client
    assert get(client, bucket, "key") == b"12345"


def test_close_ends_its_threads(s3_server: S3Server, bucket: str) -> None:
    client = S3Client(_REGION, endpoint=s3_server.endpoint, s3client_config=settings_of_its_own())
    client._runtime()  # the first one of a process starts a thread that stays
    opened = Opened()
    put(client, bucket, "key", bytes(20 << 20))
    assert len(get(client, bucket, "key")) == 20 << 20
    assert opened.threads
    client.close()
    assert opened.are_gone()


def test_a_dropped_client_needs_no_thread_to_end(
    s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = threading.Event()

    def no_thread(*_: object) -> None:
        asked.set()
        raise RuntimeError("can't create new thread at interpreter shutdown")  # as CPython 3.12 says then

    client = S3Client(s3_server.region, endpoint=s3_server.endpoint)
    client.put_object(bucket, "key").close()
    monkeypatch.setattr("_thread.start_new_thread", no_thread)
    del client
    assert asked.wait(20)
    done = threading.Event()
    leave_to_collector(done.set)  # after the client's end
    assert done.wait(20)
    assert caplog.records == []


@pytest.mark.parametrize("region", ["", None, 7])
def test_a_region_must_be_given(region: object) -> None:
    with pytest.raises(S3ConfigurationError, match="a region such as 'us-east-1' is needed"):
        S3Client(region)  # type: ignore[arg-type]


@pytest.mark.parametrize("agent", ["a\r\nb", "tab\t", "\x00", "ü"])
def test_a_user_agent_cannot_forge_headers(agent: str) -> None:
    with pytest.raises(S3ConfigurationError, match="user agent must be printable"):
        S3Client(_REGION, user_agent=agent)


def test_the_user_agent_is_sent(proxy: RecordingProxy, bucket: str) -> None:
    with S3Client(_REGION, endpoint=proxy.endpoint, user_agent="mine/1") as client:
        put(client, bucket, "key", b"")
    (exchange,) = proxy.exchanges
    assert exchange.request.headers["user-agent"] == client.user_agent


# -- threads and forks --------------------------------------------------------------------------------------------


def in_threads(count: int, work: object) -> list[BaseException]:
    assert callable(work)
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return errors


def test_threads_share_a_client(client: S3Client, bucket: str) -> None:
    def work(number: int) -> None:
        for step in range(10):
            key, data = f"{number}/{step}", f"{number}-{step}".encode() * 1000
            put(client, bucket, key, data)
            assert get(client, bucket, key) == data
            assert client.head_object(bucket, key).size == len(data)
        assert len(next(client.list_objects(bucket, f"{number}/")).object_info) == 10

    assert in_threads(16, work) == []
    assert len(client._runtime().caller._pool._open) <= 128


def test_one_runtime_for_threads_that_begin_together(s3_server: S3Server) -> None:
    client = S3Client(_REGION, endpoint=s3_server.endpoint)
    together = threading.Barrier(16)
    found = set()

    def work(number: int) -> None:
        together.wait(30)
        found.add(client._runtime())

    assert in_threads(16, work) == []
    assert len(found) == 1
    client.close()


def test_fork_while_threads_use_the_client(client: S3Client, bucket: str) -> None:
    """Whatever locks and sockets threads hold at the fork, the children and the parent read and write."""
    data = os.urandom(100_000)
    put(client, bucket, "key", data)
    stop = threading.Event()
    started = threading.Barrier(17)
    reads = [0] * 16

    def work(number: int) -> None:
        started.wait(30)
        while not stop.is_set():
            assert get(client, bucket, "key") == data
            reads[number] += 1

    errors: list[BaseException] = []
    background = threading.Thread(target=lambda: errors.extend(in_threads(16, work)))
    background.start()
    try:
        started.wait(30)
        statuses = [_in_forked_child(lambda i=i: _read_and_write(client, bucket, data, i)) for i in range(6)]
    finally:
        stop.set()
        background.join(60)
    assert statuses == [0] * 6
    assert errors == []
    assert all(reads)
    assert [get(client, bucket, f"child-{i}") for i in range(6)] == [data] * 6


def _read_and_write(client: S3Client, bucket: str, data: bytes, number: int) -> None:
    assert get(client, bucket, "key") == data
    put(client, bucket, f"child-{number}", data)


def _in_forked_child(work: object) -> int:
    assert callable(work)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_fork_with_the_clients_locks_held(client: S3Client, bucket: str) -> None:
    put(client, bucket, "key", b"12345")
    runtime = client._runtime()
    with client._lock, runtime.workers._lock, runtime.caller._pool._lock, runtime.budget.lock:
        status = _in_forked_child(lambda: _read_and_write(client, bucket, b"12345", 0))
    assert status == 0
    assert get(client, bucket, "child-0") == b"12345"


def test_a_childs_end_does_not_disturb_the_parents_connections(proxy: RecordingProxy, bucket: str) -> None:
    with S3Client(_REGION, endpoint=proxy.endpoint) as client:
        put(client, bucket, "key", b"12345")
        accepted = proxy.accepted
        assert _in_forked_child(client.close) == 0
        assert _in_forked_child(lambda: None) == 0
        assert get(client, bucket, "key") == b"12345"
        assert proxy.accepted == accepted, "the parent's kept-alive connection was lost"


def test_errors_pickle(client: S3Client, bucket: str) -> None:
    with pytest.raises(S3Exception) as caught:
        get(client, bucket, "missing")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is type(caught.value)
    assert str(copy) == str(caught.value)
    assert vars(copy) == vars(caught.value)
