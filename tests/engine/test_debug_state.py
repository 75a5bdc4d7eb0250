"""A stalled program can be asked what it waits for: the text names the object, whichever locks are held."""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from s3torchconnector import S3Client
from s3torchconnector._config import MIB
from s3torchconnector._types import ObjectInfo
from tests.datasets.support import TIMEOUT, config
from tests.reading.support import wait_until
from tests.reading.test_reader_fork import Child
from tests.servers.http_messages import ReceivedRequest, response
from tests.servers.scripted import Reply, ScriptedServer, Send, Stall

LARGE, SMALL = 20 * MIB, 2000
LOCKS = (type(threading.Lock()), type(threading.RLock()))


class StallingServer(ScriptedServer):
    """Sends all but the last bytes of an object, begins uploads, and then says nothing until it ends."""

    def __init__(self) -> None:
        super().__init__(handler=self._reply)
        self.release = threading.Event()

    def _reply(self, request: ReceivedRequest) -> Reply:
        if request.method == "POST" and "uploads" in request.query:
            return response(200, b"<R><Bucket>b</Bucket><Key>k</Key><UploadId>u</UploadId></R>")
        if request.method != "GET":
            return [Stall(self.release)]
        start, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
        size = LARGE if request.path.endswith("/large") else SMALL
        stop = min(int(last) + 1, size)
        content = {"Content-Range": f"bytes {start}-{stop - 1}/{size}", "ETag": '"e"'}
        return [Send(response(206, bytes(stop - int(start)), content)[:-1000]), Stall(self.release)]


@contextlib.contextmanager
def stalling(**settings: Any) -> Iterator[tuple[S3Client, StallingServer]]:
    """A client, and a server that lets it wait; what waits fails when the server ends."""
    server = StallingServer()
    client = S3Client("us-east-1", endpoint=server.endpoint, s3client_config=config(max_attempts=1, **settings))
    try:
        with server:
            yield client, server
    finally:
        client.close()


def in_background(act: Callable[[], object]) -> threading.Thread:
    """A thread called ``busy``; how it ends does not matter."""

    def run() -> None:
        with contextlib.suppress(Exception):
            act()

    thread = threading.Thread(target=run, name="busy", daemon=True)
    thread.start()
    return thread


def says(client: S3Client, *texts: str) -> bool:
    """Whether one line of the state has all these texts."""
    return any(all(text in line for text in texts) for line in client.debug_state().splitlines())


def shows(client: S3Client, *texts: str) -> None:
    """Wait until the state says so."""
    try:
        wait_until(lambda: says(client, *texts))
    except BaseException:
        print(client.debug_state())
        raise


def reader_of(client: S3Client, key: str, size: int = LARGE) -> Any:
    return client.get_object("b", key, object_info=ObjectInfo(key, "", size, 0))


def write(client: S3Client, key: str, size: int) -> None:
    stream = client.put_object("b", key)
    stream.write(bytearray(size))
    stream.close()


def test_a_stalled_read_is_named() -> None:
    with stalling() as (client, _):
        in_background(reader_of(client, "large").read)
        shows(client, "busy: reads s3://b/large;")
        shows(client, "worker", "GetObject s3://b/large bytes=8388608-16777215; receiving, ", " bytes so far, sent 0.")
        shows(client, "GetObject s3://b/large bytes=8388608-16777215", "waits for more of the response")


def test_stalled_and_queued_small_objects_are_named() -> None:
    with stalling(max_connections=2, checksum="off") as (client, _):
        readers = [reader_of(client, f"{number}", SMALL) for number in range(3)]
        readers[0].prefetch()
        readers[1].prefetch()
        in_background(readers[2].prefetch)
        shows(client, "small objects: <PollLoop [2 requests under way, the oldest: <Exchange [GetObject s3://b/0 ")
        shows(client, "<Exchange [GetObject s3://b/1 bytes=", "receiving, ")
        shows(client, "GetObject s3://b/2 bytes=", ": queued")


def test_a_full_budget_is_named() -> None:
    with stalling(memory_budget=20 * MIB) as (client, _):
        in_background(lambda: write(client, "new", 64 * MIB))
        shows(client, "busy: writes to <upload of s3://b/new, in use", "; waits for room in the memory budget")
        shows(client, "<ByteBudget [20971520 of 20971520 bytes taken", "1 waiting]>")
        shows(client, "worker", "UploadPart s3://b/new part 1; waiting, sent ", "; waits for the response")


def test_a_full_pool_is_named() -> None:
    with stalling(max_connections=1) as (client, _):
        in_background(lambda: client.head_object("b", "first"))
        shows(client, "busy: HeadObject s3://b/first; waiting, sent ")
        in_background(lambda: client.head_object("b", "second"))
        shows(client, "busy: HeadObject s3://b/second; waits for a connection, since max_connections are in use")
        shows(client, "<ConnectionPool [1 active, 0 opening, 0 idle, 1 waiting, max 1]>")


def test_a_throttled_endpoint_is_named() -> None:
    with stalling() as (client, server):
        in_background(lambda: client.head_object("b", "first"))
        shows(client, "HeadObject s3://b/first; waiting")
        ((_, throttle),) = client._runtime().caller._routes._known.values()
        throttle.refused(1, 0.0)
        permits = 0
        while throttle.request_permit().admitted:
            permits += 1
        second = in_background(lambda: client.head_object("b", "second"))
        shows(client, "busy: HeadObject s3://b/second; waits for a permit")
        shows(client, f"{server.endpoint}: <Throttle [permits: {permits} held, 2 waiting")
        throttle.release()
        throttle.release()
    second.join(TIMEOUT)
    assert not second.is_alive()


def test_an_upload_that_hangs_is_named() -> None:
    with stalling() as (client, _):
        in_background(lambda: write(client, "new", 1000))
        shows(
            client, "busy: completes <upload of s3://b/new, in use, 1000 bytes>; PutObject s3://b/new; waiting, sent "
        )


def test_a_look_up_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with stalling(unsigned=False) as (client, server):
        provider = client._runtime().caller._authenticator._provider
        monkeypatch.setattr(provider, "valid", lambda: None)
        monkeypatch.setattr(provider, "get", lambda: server.release.wait(TIMEOUT))
        waiting = in_background(lambda: client.head_object("b", "k"))
        shows(client, "busy: HeadObject s3://b/k; waits for the look-up of the AWS credentials")
        shows(client, "s3torchconnector look-up: looks up the AWS credentials")
        server.release.set()
        waiting.join(TIMEOUT)
    assert not waiting.is_alive()


def test_a_client_that_waits_for_its_end_is_named() -> None:
    with stalling() as (client, _):
        reader = reader_of(client, "small", SMALL)
        reader.prefetch()
        shows(client, "GetObject s3://b/small ")
        in_background(client.close)
        shows(client, "busy: closes <WorkerShare [", " jobs of this client, closed | <Workers [")


def test_it_works_in_a_forked_child_and_after_close() -> None:
    with stalling() as (client, _):
        in_background(reader_of(client, "large").read)
        shows(client, "reads s3://b/large")
        assert b"not in use" in Child(lambda: client.debug_state().encode()).result()
    assert "not in use" in client.debug_state()


def locks_of_the_package() -> list[Any]:
    """All that can be found, in modules and in instances."""
    names = [name for name in list(sys.modules) if name.startswith("s3torchconnector")]
    modules = [sys.modules[name] for name in names]
    instances = [each for each in gc.get_objects() if str(type(each).__module__).startswith("s3torch")]
    # Those that are as old as their module are left out of collections, see conftest.
    instances += [each for module in modules for each in vars(module).values() if type(each).__module__ in names]
    found = []
    for owner in [*modules, *instances]:
        attributes = [*getattr(owner, "__dict__", ()), *getattr(type(owner), "__slots__", ())]
        found += [value for name in attributes if isinstance(value := getattr(owner, name, None), LOCKS)]
    return found


def test_it_takes_no_lock() -> None:
    with stalling() as (client, _):
        in_background(reader_of(client, "large").read)
        readers = [reader_of(client, f"{number}", SMALL) for number in range(3)]
        for reader in readers:
            reader.prefetch()
        shows(client, "reads s3://b/large")
        shows(client, "GetObject s3://b/2 ")
        held = [lock for lock in locks_of_the_package() if lock.acquire(blocking=False)]
        said: list[str] = []
        try:
            asking = in_background(lambda: said.append(client.debug_state()))
            asking.join(TIMEOUT)
        finally:
            for lock in held:
                lock.release()
        assert len(held) > 10
        assert "GetObject s3://b/large" in said[0]
