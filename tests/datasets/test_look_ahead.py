"""Look-ahead: objects in flight before they are asked for, in order, within bounds, cancelled if they are not needed.

No test waits for time to pass. The server holds responses until the test has seen what it wants to see.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from s3torchconnector import S3Exception, S3IterableDataset, S3Reader, S3ReaderConstructor
from s3torchconnector._dataset_source import identity
from tests.datasets.support import (
    KIB,
    MIB,
    HeldObjects,
    config,
    key_and_bytes,
    read,
    runtime_of,
    wait_until_budget_is_free,
)
from tests.reading.test_reader_fork import Child
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.scripted import ScriptedServer


def test_samples_are_in_order_though_their_bytes_are_not() -> None:
    with HeldObjects(8, hold=range(8)) as server:

        def transform(reader: S3Reader) -> bytes:
            server.wait_for(8)
            server.release(*reversed(range(8)))  # only the first time matters
            return reader.read()

        assert list(server.dataset(transform, look_ahead=8)) == [server.content(i) for i in range(8)]


@pytest.mark.parametrize("way", ["iterable", "batch", "items"])
def test_transforms_run_in_the_iterating_thread_in_order(way: str) -> None:
    """A transform needs no lock, although the bytes arrive in the opposite order, on other threads."""
    with HeldObjects(8, hold=range(8) if way != "items" else ()) as server:
        calls: list[tuple[int, int]] = []

        def transform(reader: S3Reader) -> int:
            calls.append((int(reader.key), threading.get_ident()))
            if way != "items":
                server.wait_for(8)
                server.release(*reversed(range(8)))  # only the first time matters
            assert reader.read() == server.content(int(reader.key))
            calls.append((int(reader.key), threading.get_ident()))  # one has ended before the next begins
            return int(reader.key)

        def iterate() -> list[Any]:
            if way == "iterable":
                return list(server.dataset(transform, look_ahead=8))
            dataset = server.map_dataset(transform)
            return dataset.__getitems__(range(8)) if way == "batch" else [dataset[i] for i in range(8)]

        with ThreadPoolExecutor(1) as pool:
            thread = pool.submit(threading.get_ident).result()
            assert pool.submit(iterate).result(60) == list(range(8))
        assert calls == [(number, thread) for number in range(8) for _ in range(2)]


def test_the_first_objects_are_fetched_together_though_no_size_is_known() -> None:
    """As many as later ones. One round trip of their own costs the beginning of each epoch in each worker."""
    with HeldObjects(30, hold=range(30)) as server, ThreadPoolExecutor(1) as pool:
        samples = iter(server.dataset())
        first = pool.submit(next, samples)
        server.wait_for(24)
        server.release()
        assert first.result(60) == server.content(0)
        assert list(samples) == [server.content(i) for i in range(1, 30)]


@pytest.mark.parametrize("look_ahead", [1, 2, 5])
def test_exactly_look_ahead_objects_are_in_flight(look_ahead: int) -> None:
    count = 12
    with HeldObjects(count, hold=range(count)) as server:

        def transform(reader: S3Reader) -> bytes:
            number = int(reader.key)
            allowed = min(count, number + 1 + look_ahead)
            server.wait_for(allowed)
            assert len(server.seen) == allowed
            server.release(number)
            return reader.read()

        assert list(server.dataset(transform, look_ahead=look_ahead)) == [server.content(i) for i in range(count)]
        assert server.most == look_ahead + 1


def test_look_ahead_0_requests_nothing_before_a_transform_reads() -> None:
    with HeldObjects(6) as server:

        def transform(reader: S3Reader) -> bytes:
            assert server.seen == list(range(int(reader.key)))
            return reader.read()

        assert list(server.dataset(transform, look_ahead=0)) == [server.content(i) for i in range(6)]
        assert server.most == 1


def test_negative_look_ahead_is_refused() -> None:
    with pytest.raises(ValueError, match="look_ahead must not be negative: look_ahead=-1"):
        S3IterableDataset.from_objects("s3://b/k", region="us-east-1", look_ahead=-1)


def test_by_default_small_objects_use_all_connections() -> None:
    # After the first ones the size is known. Then exactly 16 are in flight.
    with HeldObjects(60, hold=range(20, 60)) as server:

        def transform(reader: S3Reader) -> bytes:
            if int(reader.key) == 20:
                server.wait_for(20 + 16)
                server.release()
            return reader.read()

        assert len(list(server.dataset(transform, max_connections=16))) == 60
        assert server.most == 16


@pytest.mark.parametrize(("size", "ahead"), [(KIB, 10), (4 * KIB, 3), (16 * KIB, 2)])
def test_the_throughput_target_sets_how_many_are_in_flight(size: int, ahead: int) -> None:
    """By the sizes seen so far: what the target brings in 0.1 s, here 9.5 KiB, but no fewer than two objects."""
    count, taught = 60, 20  # the first ones teach the size
    with HeldObjects(count, size, hold=range(taught, count)) as server:

        def transform(reader: S3Reader) -> bytes:
            number = int(reader.key)
            if number >= taught:
                expected = min(count, number + 1 + ahead)
                server.wait_for(expected)
                assert len(server.seen) == expected
                server.release(number)
            return reader.read()

        target = 9.5 * KIB * 8 / 0.1 / 1e9
        samples = list(server.dataset(transform, throughput_target_gbps=target))
        assert samples == [server.content(i) for i in range(count)]
        assert server.most == ahead + 1


@pytest.mark.parametrize("budget", [16 * MIB, 64 * MIB])
def test_large_objects_stay_within_the_memory_budget(budget: int) -> None:
    count, part = 12, 8 * MIB
    with HeldObjects(count, size=part, hold=range(count)) as server:
        dataset = server.dataset(max_connections=32, memory_budget=budget, look_ahead=30)
        most_taken = 0

        def transform(reader: S3Reader) -> int:
            nonlocal most_taken
            most_taken = max(most_taken, runtime_of(dataset).budget.taken)
            server.wait_for(min(count, int(reader.key) + 2))  # at least the next one is in flight
            server.release(int(reader.key))
            return len(reader.read())

        object.__setattr__(dataset._source, "transform", transform)
        assert list(dataset) == [part] * count
        # Half of the budget is left for the object being read. However small the budget, one object is fetched ahead.
        assert most_taken <= budget // 2 + part
        assert server.most <= budget // 2 // MIB + 1  # of the first ones, only a MiB each is fetched ahead
        wait_until_budget_is_free(dataset)


def test_of_large_objects_a_mib_is_prefetched_and_one_part_once_their_size_is_known() -> None:
    with HeldObjects(4, size=12 * MIB, hold=range(4)) as server:
        readers = iter(server.dataset(identity, part_size=5 * MIB, look_ahead=1))
        first = next(readers)
        server.wait_for(2)
        assert sorted(request.range or "" for request in server.requests) == ["bytes=0-1048575"] * 2
        server.release()
        assert first.read() == server.content(0)
        assert [reader.read() for reader in readers] == [server.content(i) for i in (1, 2, 3)]
        ahead = {request.path: request.range for request in reversed(server.requests)}  # the first of each object
        assert ahead["/held/3"] == "bytes=0-5242879"


def test_a_list_of_readers_can_be_read_afterwards_in_any_order() -> None:
    with HeldObjects(40, size=64 * 1024) as server:
        dataset = server.dataset(identity)
        readers = list(dataset)
        for i in reversed(range(40)):
            assert readers[i].read() == server.content(i)
        assert sorted(server.seen) == list(range(40))  # each was requested once
        wait_until_budget_is_free(dataset)  # although all readers are alive


def test_epochs_and_parallel_iterators_see_the_same_samples() -> None:
    with HeldObjects(20) as server:
        dataset = server.dataset(key_and_bytes)
        expected = [(str(i), server.content(i)) for i in range(20)]
        assert list(dataset) == list(dataset) == expected
        assert list(zip(dataset, dataset, strict=True)) == [(sample, sample) for sample in expected]
        wait_until_budget_is_free(dataset)


def test_a_transform_may_handle_a_missing_object() -> None:
    with HeldObjects(10, missing=[4]) as server:

        def transform(reader: S3Reader) -> bytes | str:
            try:
                return reader.read()
            except S3Exception as error:
                return f"{error.bucket}/{error.key}"

        expected = [server.content(i) if i != 4 else "held/4" for i in range(10)]
        assert list(server.dataset(transform, look_ahead=10)) == expected


def test_a_missing_object_fails_after_all_samples_before_it() -> None:
    with HeldObjects(10, missing=[4]) as server:
        dataset = server.dataset(look_ahead=10)
        samples: list[bytes] = []
        with pytest.raises(S3Exception, match=r"The key does not exist.*s3://held/4"):
            samples.extend(dataset)
        assert samples == [server.content(i) for i in range(4)]
        wait_until_budget_is_free(dataset)


def test_a_broken_listing_fails_after_the_samples_before_it() -> None:
    def respond(request: ReceivedRequest) -> bytes:
        if request.path.rstrip("/") != "/bucket":
            return response(200, b"content")
        if {"continuation-token", "start-after"} & request.query.keys():
            return s3_error(403, "AccessDenied")
        facts = "<Size>7</Size><ETag>e</ETag><LastModified>2026-01-01T00:00:00Z</LastModified>"
        entries = "".join(f"<Contents><Key>k{i}</Key>{facts}</Contents>" for i in range(5))
        return response(200, (
            f"<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>{entries}"
            "</ListBucketResult>").encode())  # fmt: skip

    with ScriptedServer(handler=respond) as server:
        dataset = S3IterableDataset.from_prefix(
            "s3://bucket", region="us-east-1", endpoint=server.endpoint, transform=read, s3client_config=config()
        )
        samples: list[bytes] = []
        with pytest.raises(PermissionError, match="ListObjectsV2"):
            samples.extend(dataset)
        assert samples == [b"content"] * 5


def _break(samples: Iterator[Any]) -> None:
    for _ in samples:
        break


def _close(samples: Iterator[Any]) -> None:
    next(samples)
    samples.close()  # type: ignore[attr-defined]


def _garbage(samples: Iterator[Any]) -> None:
    next(samples)
    del samples
    gc.collect()


def _fail(samples: Iterator[Any]) -> None:
    next(samples)
    with pytest.raises(ZeroDivisionError):
        next(samples)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("leave", [_break, _close, _garbage, _fail])
def test_leaving_the_loop_cancels_requests_in_flight(leave: Callable[[Iterator[Any]], None]) -> None:
    """The server sends nothing but object 0 until the end: only cancelling can free the memory and the threads."""
    with HeldObjects(30, hold=range(1, 30)) as server:

        def transform(reader: S3Reader) -> bytes:
            if reader.key == "1":
                raise ZeroDivisionError
            server.wait_for(6)
            return reader.read()

        kept: list[S3Reader] = []  # so that it is not the garbage collector that cancels

        def construct(bucket: str, key: str, get_object_info: Any, get_stream: Any) -> S3Reader:
            reader = S3ReaderConstructor.default()(bucket, key, get_object_info, get_stream)
            kept.extend([reader] if int(key) > 1 else [])
            return reader

        dataset = server.dataset(transform, look_ahead=5)
        object.__setattr__(dataset._source, "reader_constructor", construct)
        leave(iter(dataset))
        assert kept
        assert all(reader.closed for reader in kept)
        wait_until_budget_is_free(dataset)
        dataset._source.client.close()  # waits for all threads, so none is inside a request
        # Those that were handed out and those ahead of them: requests that were sent before may be seen late, not more.
        assert len(server.seen) <= (2 if leave is _fail else 1) + 5
        server.release()
        assert len(list(server.dataset())) == 30  # a dataset still works


def test_an_unused_iterator_requests_nothing() -> None:
    with HeldObjects(3) as server:
        with contextlib.closing(iter(server.dataset())):  # type: ignore[type-var]
            pass
        assert server.seen == []


def test_a_forked_child_fetches_ahead_by_itself() -> None:
    """The child requests again what the parent has in flight, at once, within its own budget."""
    count, look_ahead = 12, 5
    with HeldObjects(count, hold=range(1, count)) as server:
        dataset = server.dataset(look_ahead=look_ahead)
        samples = iter(dataset)
        assert next(samples) == server.content(0)
        server.wait_for(1 + look_ahead)
        budget = runtime_of(dataset).budget
        full = budget.take(budget.limit)
        child = Child(lambda: b"".join(samples))
        budget.give_back(full)
        server.wait_for(1 + look_ahead + 1 + look_ahead)  # the next one, and those ahead of it
        server.release()
        assert child.result() == b"".join(map(server.content, range(1, count)))
        assert list(samples) == [server.content(i) for i in range(1, count)]
        wait_until_budget_is_free(dataset)
