"""Parts that one request fills: each readable as soon as it is full, and never into memory that was withdrawn."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest

from s3torchconnector._errors import S3Exception
from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer.engine._budget import BLOCK
from s3torchconnector._transfer.engine._landing import Landing
from s3torchconnector._transfer.engine._ranges import Range
from s3torchconnector._transfer.reading._object_version import ObjectVersion
from s3torchconnector._transfer.reading._part import Offers
from s3torchconnector._transfer.reading._train import Car, Train, deposit
from s3torchconnector._wire import CancelToken
from tests.interrupts import interrupted_at
from tests.reading.support import MIB, client_of, content, wait_until
from tests.servers.http_messages import Request, response
from tests.servers.scripted import ScriptedServer, Send, Stall

SIZE = 5 * BLOCK


class Slow:
    """Sends a block, one and a half more when ``first`` is set, and the rest when ``second`` is."""

    def __init__(self) -> None:
        self.first, self.second = threading.Event(), threading.Event()

    def __call__(self, request: Request) -> list[Send | Stall]:
        headers = {"ETag": '"e"', "Content-Range": f"bytes 0-{SIZE - 1}/{SIZE}", "Content-Length": str(SIZE)}
        head, body = response(206, b"", headers), content(0, SIZE)
        half = 5 * BLOCK // 2
        return [
            Send(head + body[:BLOCK]),
            Stall(self.first),
            Send(body[BLOCK:half]),
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
        assert client.runtime().budget.taken == 0


@pytest.fixture
def train(client: S3Client) -> Train:
    """Under way, with its first part here."""
    version = ObjectVersion("bucket", "key")
    version.hold_to(SIZE, '"e"')
    runtime = client.runtime()
    runtime.budget.take(deposit(SIZE))
    train = Train(runtime, version, Range(0, SIZE))
    runtime.workers.run(train.fetch)
    train.parts[0].data()
    return train


def discard(parts: list[Car]) -> None:
    for part in parts:
        part.discard()


def test_each_part_is_here_when_it_is_full(train: Train, slow: Slow) -> None:
    assert [part.landed for part in train.parts] == [True, False, False, False, False]
    slow.first.set()
    assert train.parts[1].data() == content(BLOCK, 2 * BLOCK)
    assert not train.parts[2].landed
    slow.second.set()
    assert b"".join(part.data() for part in train.parts) == content(0, SIZE)
    assert not any(part.elsewhere for part in train.parts)
    discard(train.parts)


def test_an_offered_place_is_filled_and_takes_no_budget(client: S3Client, train: Train, slow: Slow) -> None:
    memory = memoryview(bytearray(3 * BLOCK))
    for i, part in enumerate(train.parts[2:]):
        part.offer(memory[i * BLOCK : (i + 1) * BLOCK])
    slow.first.set()
    slow.second.set()
    for part in train.parts:
        part.data()
    assert memory == content(2 * BLOCK, SIZE)
    assert [part.elsewhere for part in train.parts] == [False, False, True, True, True]
    assert client.runtime().budget.taken <= 2 * BLOCK
    discard(train.parts)


def test_what_is_offered_too_late_is_copied_there_by_who_receives_it(
    client: S3Client, train: Train, slow: Slow
) -> None:
    memory = memoryview(bytearray(BLOCK))
    slow.first.set()
    coming = train.parts[2]
    wait_until(lambda: coming._begun)
    coming.offer(memory)
    slow.second.set()
    coming.data()
    assert coming.elsewhere
    assert memory == content(2 * BLOCK, 3 * BLOCK)
    train.parts[4].data()
    assert client.runtime().budget.taken <= 4 * BLOCK
    discard([part for part in train.parts if part is not coming])


def test_memory_that_was_offered_too_late_and_withdrawn_is_left_alone(train: Train, slow: Slow) -> None:
    memory = memoryview(bytearray(BLOCK))
    slow.first.set()
    coming = train.parts[2]
    wait_until(lambda: coming._begun)
    coming.offer(memory)
    coming.withdraw()
    slow.second.set()
    with pytest.raises(S3Exception):
        train.parts[4].data()
    assert memory == bytes(BLOCK)
    discard(train.parts)


def test_nothing_touches_memory_that_was_withdrawn(train: Train, slow: Slow) -> None:
    memory = memoryview(bytearray(2 * BLOCK))
    receiving, coming = train.parts[2:4]
    receiving.offer(memory[:BLOCK])
    coming.offer(memory[BLOCK:])
    slow.first.set()
    wait_until(lambda: memory[:1] == content(2 * BLOCK, 2 * BLOCK + 1))
    coming.withdraw()
    receiving.withdraw()
    memory[:] = untouched = b"\xa5" * len(memory)
    slow.second.set()
    with pytest.raises(S3Exception):
        train.parts[4].data()
    assert memory == untouched
    discard(train.parts)


def test_a_part_that_is_here_is_withdrawn_while_its_readers_are_being_told(
    train: Train, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread may lose the interpreter lock between the two; the rest of the train is wanted all the same."""
    here, told = threading.Event(), threading.Event()
    settle = Landing.settle

    def settle_late(landing: Landing, error: BaseException | None = None) -> None:
        if landing is train.parts[1]._landing:
            here.set()
            assert told.wait(30)
        settle(landing, error)

    monkeypatch.setattr(Landing, "settle", settle_late)
    train.parts[1].offer(memoryview(bytearray(BLOCK)))
    slow.first.set()
    assert here.wait(30)
    train.parts[1].withdraw()
    told.set()
    slow.second.set()
    assert train.parts[4].data() == content(4 * BLOCK, SIZE)
    discard(train.parts)


def test_a_train_that_nobody_wants_stops(train: Train, slow: Slow) -> None:
    discard(train.parts[1:])
    with pytest.raises(S3Exception):
        train.parts[4].data()  # although the server has sent no more
    assert train.parts[0].data() == content(0, BLOCK)
    discard(train.parts[:1])
    slow.first.set()


def test_a_train_goes_on_for_the_parts_that_are_wanted(train: Train, slow: Slow) -> None:
    discard(train.parts[:4])
    slow.first.set()
    slow.second.set()
    assert train.parts[4].data() == content(4 * BLOCK, SIZE)
    discard(train.parts[4:])


def test_a_read_in_order_waits_for_no_more_than_its_block() -> None:
    size, rest = 5 * MIB, threading.Event()

    def handler(request: Request) -> list[Send | Stall]:
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
        end_of_block = BLOCK - start
        return [Send(head + body[:end_of_block]), Stall(rest), Send(body[end_of_block:])]

    with (
        ScriptedServer(handler=handler) as server,
        client_of(server.endpoint, unsigned=True, checksum="off", read_timeout=3, max_attempts=1) as client,
    ):
        reader = client.get_object("bucket", "key")
        assert [reader.read(MIB) for _ in range(3)] == [content(i * MIB, (i + 1) * MIB) for i in range(3)]
        rest.set()
        assert reader.read() == content(3 * MIB, size)


def test_no_interrupt_of_the_withdrawal_leaves_memory_to_a_train(client: S3Client, slow: Slow) -> None:
    """At any moment of it: what was being received stops, and what had not begun is not received into it."""
    version = ObjectVersion("bucket", "key")
    version.hold_to(SIZE, '"e"')
    runtime = client.runtime()
    for moment in itertools.count(2):  # not where ``__exit__`` begins
        slow.first.clear()
        runtime.budget.take(deposit(SIZE))
        train = Train(runtime, version, Range(0, SIZE))
        runtime.workers.run(train.fetch)
        train.parts[0].data()
        memory = memoryview(bytearray(3 * BLOCK))
        interrupted = False
        offers = Offers(runtime.budget, train.parts[2:], Range(2 * BLOCK, SIZE), memory)
        offers.__enter__()
        slow.first.set()
        wait_until(lambda train=train: train.parts[2]._begun)
        try:
            with interrupted_at(moment, Offers.__exit__, Car.withdraw, Train.stop, CancelToken.cancel, Landing.join):
                offers.__exit__(None, None, None)
        except KeyboardInterrupt:
            interrupted = True
        assert train.parts[2]._landing.settled, moment
        assert [part._offered for part in train.parts] == [None] * 5, moment
        discard(train.parts)
        if not interrupted:
            break
    assert moment > 10
