"""Memory: what readers hold is within the budget, and all of it comes back, whatever way reading ends."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from s3torchconnector._errors import S3AccessDeniedError, S3Exception
from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer.engine._budget import BUFFER_SIZE, ByteBudget
from s3torchconnector._types import ObjectInfo
from s3torchconnector.s3reader import S3ReaderConstructor
from s3torchconnector.testing import S3Server
from tests.reading.support import GIB, KIB, MIB, PART, VirtualObject, asked, client_of, content, open_object, wait_until
from tests.resources import Opened, settings_of_its_own
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.scripted import Close, ScriptedServer, Send, Stall

POLICIES = {
    "default": S3ReaderConstructor.default(),
    "sequential": S3ReaderConstructor.sequential(),
    "range_based": S3ReaderConstructor.range_based(MIB),
    "dcp_optimized": S3ReaderConstructor.dcp_optimized(),
}
BUDGET = 24 * MIB


@pytest.fixture
def virtual() -> VirtualObject:
    return VirtualObject(4 * GIB)


@pytest.fixture
def client(s3_server: S3Server, virtual: VirtualObject) -> Iterator[S3Client]:
    """A client with a small budget; once it is closed and its threads are gone, nothing of the budget is taken."""
    with ScriptedServer(handler=virtual) as server:
        client = client_of(server.endpoint, memory_budget=BUDGET, max_attempts=2)
        budget = client._runtime().budget
        yield client
        client.close()
        assert budget.taken == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_a_stream_stays_within_the_budget(client: S3Client, policy: str) -> None:
    budget = client._runtime().budget
    most = 0
    with open_object(client, "bucket", reader_constructor=POLICIES[policy]) as reader:
        for start in range(0, 120 * MIB, MIB):
            assert reader.read(MIB) == content(start, start + MIB)
            most = max(most, budget.taken)
    assert most <= BUDGET + PART
    if policy in ("default", "sequential"):
        assert most > BUDGET // 2  # it is used, too


def test_read_ahead_that_waits_for_memory_is_released(virtual: VirtualObject) -> None:
    """Every thread is at read-ahead for which there is no room, when others are read, and when the client closes."""
    with ScriptedServer(handler=virtual) as server:
        client = client_of(server.endpoint, memory_budget=BUDGET, max_connections=4)
        readers = [open_object(client, "bucket", reader_constructor=POLICIES["sequential"]) for _ in range(3)]
        for start in (0, 300 * MIB, 100 * MIB, 50 * MIB, 7 * MIB):
            for reader in readers:
                reader.seek(start)
                assert reader.read(2 * MIB) == content(start, start + 2 * MIB)
        client.close()
        for reader in readers:
            reader.close()
        assert client._runtime().budget.taken == 0
        client.close()


def test_complete_blocks_are_used_while_others_arrive(client: S3Client, virtual: VirtualObject) -> None:
    virtual.size = 4 * PART  # all of it fits into the budget
    release = threading.Event()

    def stall_the_second_part(request: ReceivedRequest) -> Any:
        if request.method == "GET" and asked(request.range, virtual.size) == (PART, 2 * PART):
            virtual.before = lambda request: None
            return [Stall(release), *virtual(request)]
        return None

    virtual.before = stall_the_second_part
    budget = client._runtime().budget
    buffer = bytearray(4 * PART - MIB)
    with open_object(client, "bucket", reader_constructor=POLICIES["sequential"]) as reader:
        assert reader.read(MIB) == content(0, MIB)
        index = reader._object._index
        wait_until(lambda: [block.ready for block in index if block.start >= 2 * PART] == [True] * 4)
        rest = threading.Thread(target=reader.readinto, args=(buffer,))
        rest.start()
        try:
            wait_until(lambda: budget.taken <= 2 * PART)  # of three parts, but for a few small blocks
            assert rest.is_alive()
        finally:
            release.set()
            rest.join()
    assert buffer == content(MIB, 4 * PART)


def test_what_a_failed_read_received_in_place_is_fetched_again(client: S3Client, virtual: VirtualObject) -> None:
    virtual.size = 4 * PART
    good, bad = threading.Event(), threading.Event()

    def stall(request: ReceivedRequest) -> Any:
        selected = asked(request.range, virtual.size) if request.method == "GET" else None
        if selected == (PART, 2 * PART):
            return [Stall(bad), Send(s3_error(403, "AccessDenied")), Close()]
        if selected == (2 * PART, 3 * PART):
            virtual.before = lambda request: stall(request) if asked(request.range, virtual.size) != selected else None
            return [Stall(good), *virtual(request)]
        return None

    virtual.before = stall
    with open_object(client, "bucket", reader_constructor=POLICIES["sequential"]) as reader:
        assert reader.read(MIB) == content(0, MIB)
        index = reader._object._index
        errors: list[type[BaseException]] = []

        def read_the_rest() -> None:
            try:
                reader.readinto(bytearray(4 * PART - MIB))
            except S3Exception as error:
                errors.append(type(error))

        failing = threading.Thread(target=read_the_rest)
        failing.start()
        third = [block for block in index if 2 * PART <= block.start < 3 * PART]
        wait_until(lambda: all(block._destination is not None for block in third))
        good.set()
        wait_until(lambda: all(block.received_in_place and block.ready for block in third))
        bad.set()
        failing.join()
        assert errors == [S3AccessDeniedError]
        virtual.before = lambda request: None
        for start, stop in ((2 * PART + 10, 2 * PART + 20), (MIB, 4 * PART)):
            reader.seek(start)
            assert reader.read(stop - start) == content(start, stop)


def test_many_streams_share_the_budget(client: S3Client) -> None:
    """Each reader may hold what it waits for; reading ahead is what has to fit."""
    budget = client._runtime().budget
    readers = [open_object(client, "bucket", reader_constructor=POLICIES["sequential"]) for _ in range(6)]
    for start in range(0, 12 * MIB, MIB):
        for reader in readers:
            assert reader.read(MIB) == content(start, start + MIB)
            assert budget.taken <= BUDGET + len(readers) * PART
    for reader in readers:
        reader.close()


@pytest.mark.parametrize("policy", POLICIES)
def test_memory_of_scattered_reads_is_bounded(client: S3Client, policy: str) -> None:
    budget = client._runtime().budget
    with open_object(client, "bucket", reader_constructor=POLICIES[policy]) as reader:
        for number in range(60):
            place = number * 61 * MIB
            reader.seek(place)
            assert reader.read(KIB) == content(place, place + KIB)
        assert budget.taken <= BUDGET + PART


@pytest.mark.parametrize("policy", ["default", "sequential"])
@pytest.mark.parametrize(
    "leave",
    [
        lambda reader: reader.close(),
        lambda reader: (reader.read(3 * MIB), reader.read(MIB), reader.close()),
        lambda reader: (reader.seek(-10, os.SEEK_END), reader.close()),
        lambda reader: (reader.prefetch(), reader.close()),
        lambda reader: (reader.prefetch(), reader.prefetch(), reader.read(10), reader.prefetch()),
        lambda reader: (reader.prefetch(), reader._start_early(), reader._hand_out(), reader.read(10)),
        lambda reader: [reader.read(MIB) for _ in range(5)],
        lambda reader: None,
    ],
    ids=["close", "read", "tail", "prefetch", "dropped prefetch", "delivered", "dropped reads", "dropped"],
)
def test_everything_comes_back(client: S3Client, policy: str, leave: Callable[[Any], Any]) -> None:
    leave(open_object(client, "bucket", reader_constructor=POLICIES[policy]))
    gc.collect()  # the fixture compares


def test_readers_that_are_never_read_or_closed(client: S3Client, virtual: VirtualObject) -> None:
    virtual.size = 100 * KIB
    readers = [open_object(client, "bucket", str(number)) for number in range(20)]
    for reader in readers:
        reader._start_early(50 * KIB)
    cycle: list[Any] = [readers]
    cycle.append(cycle)
    del readers, reader, cycle
    gc.collect()


@pytest.mark.parametrize(
    "answer",
    [s3_error(503, "SlowDown"), s3_error(404, "NoSuchKey"), response(206), [Close()]],
    ids=["503", "404", "no range", "closed"],
)
@pytest.mark.parametrize("good", [0, 1, 3])
def test_everything_comes_back_after_errors(client: S3Client, virtual: VirtualObject, answer: Any, good: int) -> None:
    """The first responses are good, then none is."""
    virtual.before = lambda request: answer if len(virtual.requests) > good else None
    with open_object(client, "bucket") as reader:
        reader._start_early()
        for size in (10, 2 * MIB, 3 * MIB, 40 * MIB):
            try:
                reader.read(size)
            except S3Exception:
                break
        else:
            pytest.fail("no read met the error")
        with pytest.raises(S3Exception):
            reader.readinto(bytearray(40 * MIB))


def test_the_budget_comes_back_after_an_object_listed_larger(client: S3Client, virtual: VirtualObject) -> None:
    virtual.size = 10 * KIB
    info = ObjectInfo("key", "", 3 * PART, 0)
    with open_object(client, "bucket", object_info=info) as reader:
        reader.prefetch()
        assert reader.read() == content(0, 10 * KIB)


def test_closing_does_not_wait_for_running_work(client: S3Client, virtual: VirtualObject) -> None:
    release = threading.Event()
    stalled = threading.Event()

    def stall(request: ReceivedRequest) -> Any:
        stalled.set()
        return [Stall(release)]

    virtual.before = stall
    reader = open_object(client, "bucket")
    reader._start_early()
    assert stalled.wait(30)
    reader.close()
    client.close()  # joins the thread that was receiving
    assert not release.is_set()
    assert client._runtime().budget.taken == 0
    release.set()


def test_prefetch_waits_for_the_head_and_not_for_the_body(client: S3Client, virtual: VirtualObject) -> None:
    release = threading.Event()
    virtual.size = 1000
    head = response(206, content(0, 1000), {"ETag": '"one"', "Content-Range": "bytes 0-999/1000"})
    virtual.before = lambda request: [Send(head[:-1000]), Stall(release), Send(head[-1000:])]
    with open_object(client, "bucket") as reader:
        reader.prefetch()
        assert not release.is_set()
        release.set()
        assert reader.read() == content(0, 1000)


@pytest.mark.parametrize("leave", ["closed", "collected"])
def test_a_closed_client_leaves_no_thread_and_no_socket(s3_server: S3Server, bucket: str, leave: str) -> None:
    def read(client: S3Client) -> bytes:
        with open_object(client, bucket) as reader:
            return bytes(reader.read())

    (s3_server.folder / bucket / "key").write_bytes(content(0, 16 * MIB))
    with client_of(s3_server.endpoint) as first:  # what is opened once in a process
        read(first)
    opened = Opened()
    client = S3Client("us-east-1", endpoint=s3_server.endpoint, s3client_config=settings_of_its_own(part_size=PART))
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(read, [client] * 16)) == {content(0, 16 * MIB)}
    reader = open_object(client, bucket)
    reader.read(10)
    assert opened.threads
    assert opened.descriptors
    if leave == "closed":
        client.close()
    del reader, client
    gc.collect()
    assert opened.are_gone()


def test_closing_a_client_ends_running_work(client: S3Client, virtual: VirtualObject) -> None:
    """More small objects than one thread carries, and large ones."""
    virtual.size = 1000
    for _ in range(8):
        readers = [open_object(client, "bucket", object_info=ObjectInfo("key", "", 1000, 0)) for _ in range(60)]
        for reader in readers:
            reader.prefetch()
        budget = client._runtime().budget
        client.close()
        assert [reader.read() for reader in readers] == [content(0, 1000)] * 60
        for reader in readers:
            reader.close()
        assert budget.taken == 0


def test_a_client_can_be_used_again(s3_server: S3Server, bucket: str) -> None:
    (s3_server.folder / bucket / "key").write_bytes(content(0, 16 * MIB))
    client = client_of(s3_server.endpoint)
    for _ in range(2):
        with client, open_object(client, bucket) as reader:
            assert reader.read() == content(0, 16 * MIB)


def test_buffers_are_reused_while_the_rest_is_reserved() -> None:
    budget = ByteBudget(8 * BUFFER_SIZE)
    assert budget.try_take(8 * BUFFER_SIZE, reserved=True)
    blocks = [budget.buffer(reserved=BUFFER_SIZE) for _ in range(4)]
    budget.give_back(4 * BUFFER_SIZE, blocks)
    assert budget.try_take(4 * BUFFER_SIZE, reserved=True)
    again = [budget.buffer(reserved=BUFFER_SIZE) for _ in range(4)]
    assert {id(block) for block in again} == {id(block) for block in blocks}


def test_spare_buffers_are_freed_for_other_memory() -> None:
    budget = ByteBudget(8 * BUFFER_SIZE)
    assert budget.try_take(8 * BUFFER_SIZE, reserved=True)
    blocks = [budget.buffer(reserved=BUFFER_SIZE) for _ in range(8)]
    seen = [weakref.ref(block) for block in blocks]
    budget.give_back(7 * BUFFER_SIZE, blocks)
    del blocks
    assert budget.overdraft == BUFFER_SIZE  # room for one of them
    assert sum(block() is not None for block in seen) == 8  # beside the bytes of one that are still taken
    assert budget.try_take(5 * BUFFER_SIZE)
    assert sum(block() is not None for block in seen) == 3


def streams_in_turns(client: S3Client, count: int, rounds: int) -> Iterator[int]:
    """Has each of many streams read a little, and yields what of the budget is taken after each read."""
    budget = client._runtime().budget
    readers = [open_object(client, "bucket", reader_constructor=POLICIES["sequential"]) for _ in range(count)]
    for start in range(0, rounds * MIB, MIB):
        for reader in readers:
            assert reader.read(MIB) == content(start, start + MIB)
            yield budget.taken
    for reader in readers:
        reader.close()


def test_many_alternating_streams_stay_within_the_budget(client: S3Client, virtual: VirtualObject) -> None:
    assert max(streams_in_turns(client, 30, 3)) <= BUDGET + BUFFER_SIZE
    assert virtual.transferred <= 30 * 3 * MIB + BUDGET + BUFFER_SIZE + PART  # no more than the reads want


def test_idle_readers_release_memory_but_not_over_and_over(client: S3Client, virtual: VirtualObject) -> None:
    client._runtime().budget.idle_after = 0.0
    assert max(streams_in_turns(client, 12, 12)) <= BUDGET + BUFFER_SIZE
    wait_until(lambda: client._runtime().budget.taken == 0)
    assert (
        virtual.transferred <= 6 * 12 * 12 * MIB
    )  # 1.7 to 3.3 times what was read; 14 if they released memory each time


def test_a_reader_fetches_again_what_it_had_to_release(client: S3Client) -> None:
    budget = client._runtime().budget
    budget.idle_after = 0.0
    idle = open_object(client, "bucket", reader_constructor=POLICIES["range_based"])
    assert idle.read(KIB) == content(0, KIB)
    assert budget.taken > 0
    before = budget.taken
    assert budget.try_take(BUDGET, unread=True)
    assert budget.taken == BUDGET
    for start in (KIB, 0, 500 * KIB):
        idle.seek(start)
        assert idle.peek()[:10] == content(start, start + 10)
        assert idle.read(KIB) == content(start, start + KIB)
    budget.give_back(BUDGET)
    assert budget.taken < before  # nothing was kept while there was no room
    idle.close()


@pytest.mark.parametrize("reads", [1, 3])
def test_read_ahead_takes_memory_only_from_idle_readers(client: S3Client, reads: int) -> None:
    budget = client._runtime().budget
    budget.idle_after = 1000.0
    with open_object(client, "bucket", reader_constructor=POLICIES["range_based"]) as reader:
        for number in range(reads):
            reader.seek(number * 10 * MIB)
            reader.read(KIB)
        assert budget.taken == reads * MIB
        assert not budget.try_take(BUDGET, unread=True)
        assert budget.taken == MIB  # but what was read before was released


def test_reading_backwards_keeps_at_most_half_the_budget(client: S3Client) -> None:
    budget = client._runtime().budget
    with open_object(client, "bucket") as reader:
        for place in range(150 * MIB, 0, -MIB):
            reader.seek(place)
            assert reader.read(KIB) == content(place, place + KIB)
            assert budget.taken <= BUDGET // 2 + MIB


def test_many_ranged_readers_stay_within_the_budget(client: S3Client) -> None:
    budget = client._runtime().budget
    readers = [open_object(client, "bucket", reader_constructor=S3ReaderConstructor.range_based()) for _ in range(40)]
    for number, reader in enumerate(readers):
        reader.seek(number * MIB)
        assert reader.read(KIB) == content(number * MIB, number * MIB + KIB)
        assert budget.taken <= BUDGET
    for reader in readers:
        reader.close()


def test_a_prefetch_without_memory_still_finds_a_missing_object(client: S3Client, virtual: VirtualObject) -> None:
    virtual.before = lambda request: s3_error(404, "NoSuchKey")
    budget = client._runtime().budget
    budget.take(BUDGET)
    with open_object(client, "bucket") as reader, pytest.raises(S3Exception, match="NoSuchKey"):
        reader.prefetch()
    budget.give_back(BUDGET)


def test_objects_larger_than_expected_stay_within_the_budget(client: S3Client, virtual: VirtualObject) -> None:
    virtual.size = PART
    budget = client._runtime().budget
    readers = [open_object(client, "bucket", str(number)) for number in range(12)]
    for reader in readers:
        reader._start_early(KIB)
    for reader in readers:
        reader.prefetch()  # waits until a response has begun, or the block was released
        assert budget.taken <= BUDGET
    for reader in readers:
        assert reader.read() == content(0, PART)
        reader.close()
