"""Blocks that one request fills: each can be read when it is full; memory that was taken back is left alone."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest

from s3torchconnector._errors import S3Exception
from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer.engine._budget import BUFFER_SIZE
from s3torchconnector._transfer.engine._outcome import Outcome
from s3torchconnector._transfer.engine._ranges import Range
from s3torchconnector._transfer.reading._block import Destinations
from s3torchconnector._transfer.reading._object_version import ObjectVersion
from s3torchconnector._transfer.reading._streamed_range import StreamedBlock, StreamedRange, reservation
from s3torchconnector._wire import CancelToken
from tests.interrupts import interrupted_at
from tests.reading.support import MIB, client_of, content, wait_until
from tests.servers.http_messages import ReceivedRequest, response
from tests.servers.scripted import ScriptedServer, Send, Stall

SIZE = 5 * BUFFER_SIZE


class Slow:
    """Sends a block, one and a half more when ``first`` is set, and the rest when ``second`` is."""

    def __init__(self) -> None:
        self.first, self.second = threading.Event(), threading.Event()

    def __call__(self, request: ReceivedRequest) -> list[Send | Stall]:
        headers = {"ETag": '"e"', "Content-Range": f"bytes 0-{SIZE - 1}/{SIZE}", "Content-Length": str(SIZE)}
        head, body = response(206, b"", headers), content(0, SIZE)
        half = 5 * BUFFER_SIZE // 2
        return [
            Send(head + body[:BUFFER_SIZE]),
            Stall(self.first),
            Send(body[BUFFER_SIZE:half]),
            Stall(self.second),
            Send(body[half:]),
        ]


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def client(slow: Slow) -> Iterator[S3Client]:
    with ScriptedServer(handler=slow) as server, client_of(server.endpoint, unsigned=True, max_attempts=1) as client:
        yield client
        assert client._runtime().budget.taken == 0


@pytest.fixture
def streamed(client: S3Client) -> StreamedRange:
    """Under way, with its first block here."""
    version = ObjectVersion("bucket", "key")
    version.hold_to(SIZE, '"e"')
    runtime = client._runtime()
    runtime.budget.take(reservation(SIZE))
    streamed = StreamedRange(runtime, version, Range(0, SIZE))
    runtime.workers.submit(streamed.fetch)
    streamed.blocks[0].data()
    return streamed


def discard(blocks: list[StreamedBlock]) -> None:
    for block in blocks:
        block.discard()


def test_each_block_is_ready_when_it_is_full(streamed: StreamedRange, slow: Slow) -> None:
    assert [block.ready for block in streamed.blocks] == [True, False, False, False, False]
    slow.first.set()
    assert streamed.blocks[1].data() == content(BUFFER_SIZE, 2 * BUFFER_SIZE)
    assert not streamed.blocks[2].ready
    slow.second.set()
    assert b"".join(block.data() for block in streamed.blocks) == content(0, SIZE)
    assert not any(block.received_in_place for block in streamed.blocks)
    discard(streamed.blocks)


def test_a_destination_is_filled_and_takes_no_budget(client: S3Client, streamed: StreamedRange, slow: Slow) -> None:
    memory = memoryview(bytearray(3 * BUFFER_SIZE))
    for i, block in enumerate(streamed.blocks[2:]):
        block.set_destination(memory[i * BUFFER_SIZE : (i + 1) * BUFFER_SIZE])
    slow.first.set()
    slow.second.set()
    for block in streamed.blocks:
        block.data()
    assert memory == content(2 * BUFFER_SIZE, SIZE)
    assert [block.received_in_place for block in streamed.blocks] == [False, False, True, True, True]
    assert client._runtime().budget.taken <= 2 * BUFFER_SIZE
    discard(streamed.blocks)


def test_a_late_destination_is_copied_to_by_the_receiver(client: S3Client, streamed: StreamedRange, slow: Slow) -> None:
    memory = memoryview(bytearray(BUFFER_SIZE))
    slow.first.set()
    coming = streamed.blocks[2]
    wait_until(lambda: coming._is_next)
    coming.set_destination(memory)
    slow.second.set()
    coming.data()
    assert coming.received_in_place
    assert memory == content(2 * BUFFER_SIZE, 3 * BUFFER_SIZE)
    streamed.blocks[4].data()
    assert client._runtime().budget.taken <= 4 * BUFFER_SIZE
    discard([block for block in streamed.blocks if block is not coming])


def test_a_withdrawn_late_destination_is_not_written(streamed: StreamedRange, slow: Slow) -> None:
    memory = memoryview(bytearray(BUFFER_SIZE))
    slow.first.set()
    coming = streamed.blocks[2]
    wait_until(lambda: coming._is_next)
    coming.set_destination(memory)
    coming.take_back_destination()
    slow.second.set()
    with pytest.raises(S3Exception):
        streamed.blocks[4].data()
    assert memory == bytes(BUFFER_SIZE)
    discard(streamed.blocks)


def test_nothing_touches_a_destination_that_was_taken_back(streamed: StreamedRange, slow: Slow) -> None:
    memory = memoryview(bytearray(2 * BUFFER_SIZE))
    receiving, coming = streamed.blocks[2:4]
    receiving.set_destination(memory[:BUFFER_SIZE])
    coming.set_destination(memory[BUFFER_SIZE:])
    slow.first.set()
    wait_until(lambda: memory[:1] == content(2 * BUFFER_SIZE, 2 * BUFFER_SIZE + 1))
    coming.take_back_destination()
    receiving.take_back_destination()
    memory[:] = untouched = b"\xa5" * len(memory)
    slow.second.set()
    with pytest.raises(S3Exception):
        streamed.blocks[4].data()
    assert memory == untouched
    discard(streamed.blocks)


def test_taking_back_a_filled_destination_does_not_stop_the_range(
    streamed: StreamedRange, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread may lose the interpreter lock between the two; the rest of the range is wanted all the same."""
    here, told = threading.Event(), threading.Event()
    settle = Outcome.set

    def settle_late(outcome: Outcome, error: BaseException | None = None) -> None:
        if outcome is streamed.blocks[1].outcome:
            here.set()
            assert told.wait(30)
        settle(outcome, error)

    monkeypatch.setattr(Outcome, "set", settle_late)
    streamed.blocks[1].set_destination(memoryview(bytearray(BUFFER_SIZE)))
    slow.first.set()
    assert here.wait(30)
    streamed.blocks[1].take_back_destination()
    told.set()
    slow.second.set()
    assert streamed.blocks[4].data() == content(4 * BUFFER_SIZE, SIZE)
    discard(streamed.blocks)


def test_an_unwanted_streamed_range_stops(streamed: StreamedRange, slow: Slow) -> None:
    discard(streamed.blocks[1:])
    with pytest.raises(S3Exception):
        streamed.blocks[4].data()  # although the server has sent no more
    assert streamed.blocks[0].data() == content(0, BUFFER_SIZE)
    discard(streamed.blocks[:1])
    slow.first.set()


def test_a_streamed_range_goes_on_for_wanted_blocks(streamed: StreamedRange, slow: Slow) -> None:
    discard(streamed.blocks[:4])
    slow.first.set()
    slow.second.set()
    assert streamed.blocks[4].data() == content(4 * BUFFER_SIZE, SIZE)
    discard(streamed.blocks[4:])


def test_a_read_in_order_waits_for_no_more_than_its_block() -> None:
    size, rest = 5 * MIB, threading.Event()

    def handler(request: ReceivedRequest) -> list[Send | Stall]:
        first, last = (request.range or "").removeprefix("bytes=").split("-")
        start, stop = int(first), min(int(last) + 1, size)
        headers = {
            "ETag": '"e"',
            "Content-Range": f"bytes {start}-{stop - 1}/{size}",
            "Content-Length": str(stop - start),
        }
        head, body = response(206, b"", headers), content(start, stop)
        if not start:
            return [Send(head + body)]
        end_of_block = BUFFER_SIZE - start
        return [Send(head + body[:end_of_block]), Stall(rest), Send(body[end_of_block:])]

    with (
        ScriptedServer(handler=handler) as server,
        client_of(server.endpoint, unsigned=True, checksum="off", read_timeout=3, max_attempts=1) as client,
    ):
        reader = client.get_object("bucket", "key")
        assert [reader.read(MIB) for _ in range(3)] == [content(i * MIB, (i + 1) * MIB) for i in range(3)]
        rest.set()
        assert reader.read() == content(3 * MIB, size)


def test_no_interrupt_leaves_a_destination_to_a_range(client: S3Client, slow: Slow) -> None:
    """At any moment of it: what was being received stops, and what had not begun is not received into it."""
    version = ObjectVersion("bucket", "key")
    version.hold_to(SIZE, '"e"')
    runtime = client._runtime()
    for moment in itertools.count(2):  # not where ``__exit__`` begins
        slow.first.clear()
        runtime.budget.take(reservation(SIZE))
        streamed = StreamedRange(runtime, version, Range(0, SIZE))
        runtime.workers.submit(streamed.fetch)
        streamed.blocks[0].data()
        memory = memoryview(bytearray(3 * BUFFER_SIZE))
        interrupted = False
        destinations = Destinations(runtime.budget, streamed.blocks[2:], Range(2 * BUFFER_SIZE, SIZE), memory)
        destinations.__enter__()
        slow.first.set()
        wait_until(lambda streamed=streamed: streamed.blocks[2]._is_next)
        try:
            with interrupted_at(
                moment,
                Destinations.__exit__,
                Destinations._stop_writers,
                StreamedBlock.take_back_destination,
                StreamedRange.cancel_request,
                CancelToken.cancel,
                Outcome.wait_until_set,
            ):
                destinations.__exit__(None, None, None)
        except KeyboardInterrupt:
            interrupted = True
        assert streamed.blocks[2].outcome.is_set, moment
        assert [block._destination for block in streamed.blocks] == [None] * 5, moment
        discard(streamed.blocks)
        if not interrupted:
            break
    assert moment > 10
