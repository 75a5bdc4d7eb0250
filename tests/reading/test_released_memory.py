"""Read-ahead gives back memory and connections that others need, and no interrupt costs memory."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import pytest

from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer.engine._budget import BUFFER_SIZE
from s3torchconnector._transfer.reading import _blocks, _object_reader, _plan_executor
from s3torchconnector._types import ObjectInfo
from s3torchconnector.s3reader import S3ReaderConstructor
from tests.reading.support import (
    KIB,
    MIB,
    VirtualObject,
    archive_of_torch,
    asked,
    client_of,
    content,
    open_object,
    wait_until,
)
from tests.servers.http_messages import ReceivedRequest, response
from tests.servers.scripted import ScriptedServer

SEQUENTIAL = S3ReaderConstructor.sequential()


@contextlib.contextmanager
def reading(virtual: VirtualObject, **settings: Any) -> Iterator[S3Client]:
    """A client, of whose budget nothing is taken at the end."""
    with ScriptedServer(handler=virtual) as server, client_of(server.endpoint, unsigned=True, **settings) as client:
        yield client
        client.close()
        assert client._runtime().budget.taken == 0


def has_waiting(client: S3Client, count: int) -> bool:
    """Whether so many streamed ranges wait for memory."""
    return client._runtime().budget.waiting == count


def test_an_awaited_range_waits_for_no_other_of_its_lane() -> None:
    """All that the lane has threads for wait for memory, which only the reader that waits for one more could free."""
    virtual = VirtualObject(400 * MIB)

    def begin_as_archive(request: ReceivedRequest) -> Any:
        selected = asked(request.range, virtual.size)
        if request.method != "GET" or selected is None or selected[0] > 0:
            return None
        headers = {"ETag": virtual.etag, "Content-Range": f"bytes 0-{selected[1] - 1}/{virtual.size}"}
        return response(206, archive_of_torch(content(*selected)), headers)

    virtual.before = begin_as_archive
    # Four streamed ranges, each with a block: there is no room for another.
    settings = {"part_size": 2 * BUFFER_SIZE, "memory_budget": 4 * BUFFER_SIZE + 2 * MIB, "throughput_target_gbps": 0.1}
    with reading(virtual, operation_timeout=20, **settings) as client, open_object(client, "bucket") as reader:
        reader.read(4)
        wait_until(lambda: has_waiting(client, 4))
        begin = 200 * MIB - 600 * KIB
        reader.seek(begin)
        for start in range(begin, begin + 20 * 32 * KIB, 32 * KIB):
            assert reader.read(32 * KIB) == content(start, start + 32 * KIB)


@pytest.mark.parametrize("what", ["head", "read"])
def test_ranges_that_wait_for_memory_free_their_connections(what: str) -> None:
    virtual = VirtualObject(400 * MIB)
    # A block, and as many streamed ranges as there are connections, each with a block: there is no room for another.
    settings = {"part_size": 2 * BUFFER_SIZE, "memory_budget": 6 * BUFFER_SIZE + 2 * MIB, "max_connections": 4}
    with (
        reading(virtual, operation_timeout=20, **settings) as client,
        open_object(client, "bucket", reader_constructor=SEQUENTIAL) as reader,
    ):
        reader.read(MIB)
        reader.read(MIB)
        wait_until(lambda: has_waiting(client, 4))
        if what == "head":
            assert client.head_object("bucket", "key").size == virtual.size
        else:
            with open_object(client, "bucket", "other") as other:
                assert other.readinto(bytearray(MIB)) == MIB
        assert reader.read(MIB) == content(2 * MIB, 3 * MIB)


def test_an_interrupt_at_any_moment_costs_no_memory() -> None:
    virtual = VirtualObject(30 * MIB)
    with reading(virtual, memory_budget=24 * MIB) as client:
        budget = client._runtime().budget
        for moment in itertools.count(1):
            with open_object(client, "bucket", object_info=ObjectInfo("key", "", virtual.size, 0)) as reader:
                interrupted = False
                try:
                    with interrupted_at(moment):
                        reader.prefetch()
                        reader.seek(20 * MIB)
                        for start in range(20 * MIB, 21 * MIB, 300 * KIB):
                            assert reader.read(300 * KIB) == content(start, start + 300 * KIB)
                except KeyboardInterrupt:
                    interrupted = True
                reader.seek(0)
                assert reader.read(KIB) == content(0, KIB)
            wait_until(lambda: budget.taken == 0)
            if not interrupted:
                break
        assert moment > 100


@pytest.mark.parametrize(
    "starts", [(20 * MIB, 20 * MIB + 300 * KIB, 20 * MIB + 310 * KIB), (9 * MIB, 8 * MIB, 7 * MIB, 0)]
)
def test_blocks_released_at_any_moment_are_read_right(starts: Sequence[int]) -> None:
    """While some reads go forward, or back; twice as many lines would take four times as long."""
    virtual = VirtualObject(30 * MIB)
    with reading(virtual, memory_budget=24 * MIB) as client:
        for moment in itertools.count(1):
            with open_object(client, "bucket", object_info=ObjectInfo("key", "", virtual.size, 0)) as reader:
                taken = []

                def release(reader: Any = reader, taken: list[bool] = taken) -> None:
                    taken.append(True)
                    reader._object._index.release_memory(unread=True)

                with at_line(moment, release):
                    reader.prefetch()
                    for start in starts:
                        reader.seek(start)
                        assert reader.read(10 * KIB) == content(start, start + 10 * KIB)
                        assert reader.peek().startswith(content(start + 10 * KIB, start + 10 * KIB + 10))
            if not taken:
                break
        assert moment > 100


def interrupt() -> None:
    raise KeyboardInterrupt


def interrupted_at(moment: int) -> contextlib.AbstractContextManager[None]:
    """A KeyboardInterrupt when so many lines of a reader have been carried out."""
    return at_line(moment, interrupt)


@contextlib.contextmanager
def at_line(moment: int, do: Callable[[], None]) -> Iterator[None]:
    """Calls ``do`` when so many lines of a reader have been carried out."""
    lines = itertools.count(1)
    files = (_object_reader.__file__, _plan_executor.__file__, _blocks.__file__)

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in files or frame.f_code.co_name == "__del__":
            return None
        if event == "line" and next(lines) == moment:
            do()
        return trace

    before = sys.gettrace()  # coverage's, or a debugger's
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)
