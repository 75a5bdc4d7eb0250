"""Forks at any moment, workers that are killed, and races between what starts, reads, closes and gives up."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from torch.utils.data import get_worker_info

from s3torchconnector import S3IterableDataset, S3MapDataset
from s3torchconnector._config import MIB
from s3torchconnector._s3client import S3Client
from s3torchconnector._types import ObjectInfo
from s3torchconnector.testing import S3Server
from tests.datasets.support import config, key_and_bytes
from tests.datasets.test_workers import loading
from tests.listing.support import Pages
from tests.reading.support import KIB, PART, client_of, content, open_object
from tests.reading.test_reader_fork import Child, digest
from tests.resources import Opened, settings_of_its_own
from tests.servers.http_messages import ReceivedRequest, response
from tests.servers.proxy import RecordingProxy, StallBody
from tests.servers.scripted import Reply, ScriptedServer, Send, Stall

LARGE = 11 * MIB + 3
SMALL = 20 * KIB
THREADS = 32  # that get in each other's way
FEW_THREADS = 8  # with which a fork takes a third of the time, and comes at as many moments


@pytest.fixture
def filled(s3_server: S3Server, bucket: str) -> str:
    (s3_server.folder / bucket / "large").write_bytes(content(0, LARGE))
    for number in range(16):
        (s3_server.folder / bucket / f"small{number}").write_bytes(content(number, number + SMALL))
    return bucket


@pytest.fixture
def client(s3_server: S3Server) -> Iterator[S3Client]:
    config = settings_of_its_own(part_size=PART)
    with S3Client("us-east-1", endpoint=s3_server.endpoint, s3client_config=config) as client:
        yield client


def small_ones(client: S3Client, bucket: str) -> list[Any]:
    """Readers whose objects are multiplexed and under way."""
    readers = [open_object(client, bucket, f"small{number}", object_info=_small(number)) for number in range(16)]
    for reader in readers:
        reader._start_early()
    return readers


def _contents(readers: list[Any]) -> bytes:
    return b"".join(reader.read() for reader in readers)


def _small(number: int) -> ObjectInfo:
    return ObjectInfo(f"small{number}", "", SMALL, 0)


def read_something(client: S3Client, bucket: str, dice: random.Random) -> None:
    """Small objects, multiplexed, or a large one: whole, in order, or scattered; some are closed early."""
    if dice.random() < 0.5:
        for number, reader in enumerate(small_ones(client, bucket)):
            if dice.random() < 0.9:
                assert reader.read() == content(number, number + SMALL)
            reader.close()
        return
    with open_object(client, bucket, "large") as reader:
        for _ in range(dice.randrange(6)):
            start = dice.choice([reader.tell(), dice.randrange(LARGE)])
            reader.seek(start)
            data = reader.read(dice.choice([100, 300 * KIB, 2 * MIB]))
            assert data == content(start, min(LARGE, start + len(data)))


@pytest.mark.parametrize(("forks", "count"), [(8, THREADS), pytest.param(500, FEW_THREADS, marks=pytest.mark.slow)])
def test_forks_while_threads_read(client: S3Client, filled: str, forks: int, count: int) -> None:
    """Each child reads on with the readers that it inherited, and with new ones; no byte of the parent's goes to it."""
    stop = threading.Event()

    def keep_reading(seed: int) -> None:
        dice = random.Random(seed)
        while not stop.is_set():
            read_something(client, filled, dice)

    dice = random.Random(0)
    with ThreadPoolExecutor(count) as pool:
        threads = [pool.submit(keep_reading, seed) for seed in range(count)]
        try:
            for _ in range(forks):
                inherited, small = open_object(client, filled, "large"), small_ones(client, filled)
                start = dice.randrange(LARGE - MIB)
                inherited.seek(start)
                inherited.read(dice.choice([0, 10, 200 * KIB]))
                position = inherited.tell()

                def in_child(inherited: Any = inherited, small: list[Any] = small) -> bytes:
                    return digest(inherited.read(100 * KIB)) + digest(_contents(small))

                child = Child(in_child)
                expected = digest(content(position, position + 100 * KIB))
                assert digest(inherited.read(100 * KIB)) == expected
                rest = b"".join(content(number, number + SMALL) for number in range(16))
                assert child.result() == expected + digest(rest)
                assert digest(_contents(small)) == digest(rest)
                inherited.close()
        finally:
            stop.set()
        for thread in threads:
            thread.result()


def test_a_fork_while_the_multiplexer_waits(s3_server: S3Server, filled: str, proxy: RecordingProxy) -> None:
    """The child has no multiplexer, and makes its own."""
    release, stalled = threading.Event(), threading.Semaphore(0)

    def stall(request: ReceivedRequest) -> StallBody | None:
        stalled.release()
        return StallBody(release, after=100)

    proxy.misbehave = stall
    with client_of(proxy.endpoint) as slow:
        readers = small_ones(slow, filled)
        for _ in readers:
            assert stalled.acquire(timeout=30)
        proxy.misbehave = lambda request: None
        child = Child(lambda: b"".join(digest(_contents(each)) for each in (readers, small_ones(slow, filled))))
        expected = digest(b"".join(content(number, number + SMALL) for number in range(16)))
        assert child.result() == 2 * expected
        release.set()
        assert digest(_contents(readers)) == expected


def test_a_forked_child_continues_iterating_a_dataset() -> None:
    """From the middle of a listing and of what is fetched ahead; the parent goes on as well."""
    keys = [f"{number:04}" for number in range(4 * Pages.SIZE)]
    pages, release = Pages(keys), threading.Event()

    def reply(request: ReceivedRequest) -> Reply:
        if "list-type" not in request.query:
            return response(200, request.path.encode())
        page = pages(request)
        return [Stall(release), Send(page)] if "start-after" in request.query else page  # pages asked for ahead

    with ScriptedServer(handler=reply) as server:
        samples = iter(
            S3IterableDataset.from_prefix(
                "s3://bucket", region="us-east-1", endpoint=server.endpoint, transform=key_and_bytes,
                s3client_config=config(), look_ahead=Pages.SIZE // 4,  # objects of the second page
            )
        )  # fmt: skip
        expected = [(key, f"/bucket/{key}".encode()) for key in keys]
        before = [next(samples) for _ in range(Pages.SIZE + Pages.SIZE // 2)]
        child = Child(lambda: repr(list(samples)).encode())
        release.set()
        assert before + list(samples) == expected
        assert child.result() == repr(expected[len(before) :]).encode()


def test_races_between_reading_and_closing(client: S3Client, filled: str) -> None:
    """Readers are closed by other threads than those that read: what they return is right, and the budget is whole."""
    budget = client._runtime().budget
    opened = Opened()

    def race(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(6):
            read_something(client, filled, dice)
            readers = small_ones(client, filled)
            large = open_object(client, filled, "large")
            large.read(MIB)
            large.read(MIB)  # reads ahead
            for reader in dice.sample([*readers, large], 17):
                reader.close()

    with ThreadPoolExecutor(THREADS) as pool:
        for raced in [pool.submit(race, seed) for seed in range(THREADS)]:
            raced.result()
    client.close()  # waits for what was given up
    assert budget.taken == 0
    assert opened.are_gone()


def test_closing_a_client_while_others_read(s3_server: S3Server, filled: str) -> None:
    """What is under way ends well; what comes later makes a runtime of its own."""
    for round_ in range(10):
        client = client_of(s3_server.endpoint)
        budget = client._runtime().budget
        begun = threading.Barrier(9)

        def read(seed: int, client: S3Client = client, begun: threading.Barrier = begun) -> None:
            readers = small_ones(client, filled)
            begun.wait(30)
            assert [reader.read() for reader in readers] == [content(number, number + SMALL) for number in range(16)], (
                seed
            )

        with ThreadPoolExecutor(8) as pool:
            reads = [pool.submit(read, round_ * 8 + number) for number in range(8)]
            begun.wait(30)
            client.close()
            for each in reads:
                each.result()
        assert budget.taken == 0
        client.close()


def test_a_killed_data_worker_is_an_error_and_no_hang(s3_server: S3Server, filled: str) -> None:
    dataset = S3MapDataset.from_prefix(
        f"s3://{filled}/small", region=s3_server.region, endpoint=s3_server.endpoint, transform=_suicidal
    )
    assert len(dataset) == 16  # listed here, before the fork
    with (
        loading(dataset, "fork", 2) as batches,
        pytest.raises(RuntimeError, match=r"DataLoader worker \(pid.*(killed by signal: Killed|exited unexpectedly)"),
    ):
        list(batches)
    assert dataset[0] is None


def _suicidal(reader: Any) -> None:
    """As the kernel's out-of-memory killer does it, in the middle of an epoch."""
    assert len(reader.read()) == SMALL
    if reader.key.endswith("small15") and get_worker_info() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
