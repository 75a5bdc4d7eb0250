"""Forked children and threads: an inherited reader goes on in the child, and in the parent too."""

from __future__ import annotations

import os
import select
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any

import pytest

from s3torchconnector._s3client import S3Client
from s3torchconnector._types import ObjectInfo
from s3torchconnector.s3reader import S3ReaderConstructor
from s3torchconnector.testing import S3Server
from tests.reading.support import KIB, MIB, PART, client_of, content, open_object
from tests.servers.http_messages import response
from tests.servers.proxy import RecordingProxy, StallBody
from tests.servers.scripted import ScriptedServer, Send, Stall

POLICIES = {
    "default": S3ReaderConstructor.default(),
    "sequential": S3ReaderConstructor.sequential(),
    "range_based": S3ReaderConstructor.range_based(MIB),
    "dcp_optimized": S3ReaderConstructor.dcp_optimized(),
}
SIZE = 16 * MIB + 5
_CHILD_SECONDS = 40.0


class Child:
    """A forked child that computes some bytes; ``result`` waits for them, and for its end."""

    def __init__(self, compute: Callable[[], bytes]) -> None:
        self._receiver, sender = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            status = 1
            try:
                os.write(sender, compute())
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(sender)

    def result(self) -> bytes:
        ready, _, _ = select.select([self._receiver], [], [], _CHILD_SECONDS)
        if not ready:
            os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        assert ready, "the child hangs"
        assert status == 0, "the child failed; its reason is on standard error"
        with open(self._receiver, "rb") as pipe:
            return pipe.read()


def digest(data: bytes) -> bytes:
    return sha256(data).digest()


def in_pieces(reader: Any, size: int = 700 * KIB) -> bytes:
    return digest(b"".join(iter(lambda: reader.read(size), b"")))


@pytest.fixture
def client(s3_server: S3Server, bucket: str) -> Iterator[S3Client]:
    (s3_server.folder / bucket / "key").write_bytes(content(0, SIZE))
    with client_of(s3_server.endpoint) as client:
        yield client


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("read", [0, 10, 3 * MIB, PART, 9 * MIB])
def test_both_go_on_with_an_open_reader(client: S3Client, bucket: str, policy: str, read: int) -> None:
    with open_object(client, bucket, reader_constructor=POLICIES[policy]) as reader:
        for start in range(0, read, MIB):
            reader.read(min(MIB, read - start))
        child = Child(lambda: in_pieces(reader))
        assert in_pieces(reader) == digest(content(read, SIZE))
        assert child.result() == digest(content(read, SIZE))


def test_with_a_prefetch_under_way(client: S3Client, bucket: str) -> None:
    reader = open_object(client, bucket)
    reader._start_early()
    child = Child(lambda: digest(reader.read()))
    assert reader.read() == content(0, SIZE)
    assert child.result() == digest(content(0, SIZE))


def test_with_blocks_that_the_parent_never_receives(
    client: S3Client, s3_server: S3Server, bucket: str, proxy: RecordingProxy
) -> None:
    """The child asks for itself while the parent's reader waits."""
    release, stalled = threading.Event(), threading.Event()

    def stall(request: Any) -> StallBody | None:
        if len(proxy.exchanges) == 2:  # the first read-ahead
            stalled.set()
            return StallBody(release, after=1000)
        return None

    proxy.misbehave = stall
    with client_of(proxy.endpoint) as slow, open_object(slow, bucket) as reader:
        assert reader.read(MIB) == content(0, MIB)
        waiting = threading.Thread(target=lambda: reader.read(MIB))
        waiting.start()
        assert stalled.wait(30)
        child = Child(lambda: in_pieces(reader))
        assert child.result() == digest(content(MIB, SIZE))
        release.set()
        waiting.join()
        assert in_pieces(reader) == digest(content(2 * MIB, SIZE))


def test_with_every_lock_of_the_budget_held(client: S3Client, bucket: str) -> None:
    """A thread that the child does not have can hold no lock that it needs."""
    held, release = threading.Event(), threading.Event()
    budget = client._runtime().budget

    def hold() -> bool:
        held.set()
        return release.wait(60)

    with open_object(client, bucket) as reader:
        reader.read(MIB)
        reader.read(MIB)
        holder = threading.Thread(target=lambda: budget.wait_take(2**60, hold))
        holder.start()
        assert held.wait(30)

        def compute() -> bytes:
            rest = in_pieces(reader)
            reader.close()  # lets go of what was inherited
            return rest + in_pieces(open_object(client, bucket))

        child = Child(compute)
        ready = Child(lambda: (reader._hand_out(), in_pieces(reader))[1])  # an iterator's next step in the child
        try:
            assert child.result() == digest(content(2 * MIB, SIZE)) + digest(content(0, SIZE))
            assert ready.result() == digest(content(2 * MIB, SIZE))
        finally:
            release.set()
            holder.join()
            budget.give_back(2**60)


def test_children_of_children(client: S3Client, bucket: str) -> None:
    reader = open_object(client, bucket)
    reader.read(MIB)

    def compute() -> bytes:
        reader.read(MIB)
        return Child(lambda: in_pieces(reader)).result() + in_pieces(reader)

    assert Child(compute).result() == 2 * digest(content(2 * MIB, SIZE))
    assert in_pieces(reader) == digest(content(MIB, SIZE))


@pytest.mark.parametrize("end", [lambda reader, client: reader.close(), lambda reader, client: client.close()])
def test_what_a_child_closes_stays_open_in_the_parent(
    client: S3Client, bucket: str, end: Callable[[Any, S3Client], None]
) -> None:
    with open_object(client, bucket) as reader:
        assert reader.read(MIB) + reader.read(MIB) == content(0, 2 * MIB)
        child = Child(lambda: [end(reader, client), b"done"][1])
        assert child.result() == b"done"
        assert in_pieces(reader) == digest(content(2 * MIB, SIZE))


def test_connections_of_the_parent_are_kept(s3_server: S3Server, bucket: str, proxy: RecordingProxy) -> None:
    """A child says nothing on them, and does not close them."""
    (s3_server.folder / bucket / "key").write_bytes(content(0, 100))
    with client_of(proxy.endpoint) as client:
        assert open_object(client, bucket).read() == content(0, 100)
        assert proxy.accepted == 1
        assert Child(lambda: open_object(client, bucket).read()).result() == content(0, 100)
        assert proxy.accepted == 2
        assert open_object(client, bucket).read() == content(0, 100)
        assert proxy.accepted == 2


def pipes() -> set[str]:
    links = (os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd"))
    return {os.readlink(link) for link in links if os.path.lexists(link) and "pipe:" in os.readlink(link)}


def test_what_wakes_the_multiplexer_is_not_inherited() -> None:
    release = threading.Event()
    body = content(0, KIB)
    whole = response(206, body, {"ETag": '"e"', "Content-Range": f"bytes 0-{KIB - 1}/{KIB}"})
    with (
        ScriptedServer(handler=lambda _: [Stall(release), Send(whole)]) as server,
        client_of(server.endpoint, unsigned=True) as client,
    ):
        before = pipes()
        reader = open_object(client, "bucket", object_info=ObjectInfo("key", "", KIB, 0))
        reader._start_early()
        own = pipes() - before
        child = Child(lambda: b"inherited" if pipes() & own else b"none")
        release.set()
        assert reader.read() == body
        assert len(own) == 1
        assert child.result() == b"none"


def test_forks_at_any_moment(client: S3Client, bucket: str) -> None:
    """Threads read and open readers all the time while children are forked."""
    stop = threading.Event()

    def keep_reading() -> None:
        while not stop.is_set():
            with open_object(client, bucket) as reader:
                reader.prefetch()
                assert reader.read(6 * MIB) == content(0, 6 * MIB)

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(keep_reading) for _ in range(4)]
        try:
            with open_object(client, bucket) as reader:
                for start in range(0, 12 * MIB, MIB):
                    child = Child(lambda: digest(reader.read(MIB)) + digest(open_object(client, bucket).read(MIB)))
                    data = reader.read(MIB)
                    assert child.result() == digest(data) + digest(content(0, MIB))
                    assert data == content(start, start + MIB)
        finally:
            stop.set()
        for each in readers:
            each.result()


def test_a_client_shared_by_many_threads(s3_server: S3Server, bucket: str) -> None:
    """Objects of other sizes than each other, in one part and in several; each thread has its own."""
    sizes = [number * 37 * KIB for number in range(60)] + [7 * MIB + number for number in range(4)]
    for number, size in enumerate(sizes):
        (s3_server.folder / bucket / str(number)).write_bytes(content(number, number + size))
    together = threading.Barrier(len(sizes))

    def read(number: int) -> bool:
        together.wait(30)
        with open_object(client, bucket, str(number)) as reader:
            first = reader.read(100)
            reader.seek(sizes[number] // 2)
            second = reader.read()
            reader.seek(0)
            expected = content(number, number + sizes[number])
            return bool((first, second, reader.read()) == (expected[:100], expected[sizes[number] // 2 :], expected))

    with client_of(s3_server.endpoint, max_connections=20) as client, ThreadPoolExecutor(len(sizes)) as pool:
        assert all(pool.map(read, range(len(sizes))))
