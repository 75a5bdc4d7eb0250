"""How reads become requests: as few, as large and as early as they can be, and no byte twice."""

from __future__ import annotations

import io
import os
import random
import threading
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from s3torchconnector import S3MapDataset
from s3torchconnector._s3client import S3Client
from s3torchconnector._types import ObjectInfo
from s3torchconnector.s3reader import S3ReaderConstructor
from s3torchconnector.testing import S3Server
from tests.reading.support import (
    GIB,
    KIB,
    MIB,
    PART,
    VirtualObject,
    archive_of_torch,
    asked,
    client_of,
    content,
    fetched_again,
    open_object,
)
from tests.servers.http_messages import ReceivedRequest
from tests.servers.proxy import RecordingProxy
from tests.servers.scripted import ScriptedServer

POLICIES = {
    "default": S3ReaderConstructor.default(),
    "sequential": S3ReaderConstructor.sequential(),
    "range_based": S3ReaderConstructor.range_based(),
    "range_based-0": S3ReaderConstructor.range_based(0),
    "dcp_optimized": S3ReaderConstructor.dcp_optimized(),
}


@pytest.fixture
def client(proxy: RecordingProxy) -> Iterator[S3Client]:
    with client_of(proxy.endpoint) as client:
        yield client


@pytest.fixture
def large() -> VirtualObject:
    return VirtualObject(10 * GIB)


@pytest.fixture
def far(s3_server: S3Server, large: VirtualObject) -> Iterator[S3Client]:
    """A client of a server that has the object ``large`` at every key."""
    with ScriptedServer(handler=large) as server, client_of(server.endpoint) as client:
        yield client


def ranges_of(proxy: RecordingProxy, size: int) -> list[tuple[int, int]]:
    return [selected for get in proxy.of("GET") if (selected := asked(get.range, size)) is not None]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("size", [1, 110 * KIB, PART])
@pytest.mark.parametrize("how", ["read", "prefetched", "listed", "readinto"])
def test_one_request_for_an_object_of_one_part(
    s3_server: S3Server, bucket: str, client: S3Client, proxy: RecordingProxy, policy: str, size: int, how: str
) -> None:
    (s3_server.folder / bucket / "key").write_bytes(content(0, size))
    info = ObjectInfo("key", "", size, 0) if how == "listed" else None
    with open_object(client, bucket, object_info=info, reader_constructor=POLICIES[policy]) as reader:
        assert not proxy.exchanges
        if how == "prefetched":
            reader.prefetch()
        if how == "readinto":
            buffer = bytearray(size)
            assert reader.readinto(buffer) == size
            assert buffer == content(0, size)
        else:
            assert reader.read() == content(0, size)
    assert [exchange.method for exchange in proxy.exchanges] == ["GET"]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("prefetched", [False, True])
def test_one_request_for_an_empty_object(large: VirtualObject, far: S3Client, policy: str, prefetched: bool) -> None:
    large.size = 0
    with open_object(far, "bucket", reader_constructor=POLICIES[policy]) as reader:
        if prefetched:
            reader.prefetch()
        assert reader.read() == b""
        assert reader.seek(0, os.SEEK_END) == 0
    assert [request.method for request in large.requests] == ["GET"]


def test_an_empty_object_of_a_server_that_returns_no_size(
    bucket: str, s3_server: S3Server, client: S3Client, proxy: RecordingProxy
) -> None:
    (s3_server.folder / bucket / "key").touch()
    with open_object(client, bucket) as reader:
        assert reader.read() == b""
    assert [exchange.method for exchange in proxy.exchanges] == ["GET", "HEAD"]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_large_object_is_read_in_parts(
    s3_server: S3Server, bucket: str, client: S3Client, proxy: RecordingProxy, policy: str
) -> None:
    size = 4 * PART + 1000
    data = content(0, 2 * PART) + content(2 * PART, size)
    (s3_server.folder / bucket / "key").write_bytes(data)
    with open_object(client, bucket, reader_constructor=POLICIES[policy]) as reader:
        assert reader.read() == data
    assert sorted(ranges_of(proxy, size)) == [(start, min(size, start + PART)) for start in range(0, size, PART)]
    assert len(proxy.of("GET")) == 5
    assert len(proxy.of("HEAD")) == 1  # whether there is a checksum to verify them by


def test_each_item_of_a_map_dataset_is_one_request(s3_server: S3Server, bucket: str, proxy: RecordingProxy) -> None:
    for number in range(5):
        (s3_server.folder / bucket / str(number)).write_bytes(content(number, number + 1000))
    dataset = S3MapDataset.from_prefix(
        f"s3://{bucket}/", region="us-east-1", endpoint=proxy.endpoint, transform=lambda reader: reader.read()
    )
    assert [dataset[number] for number in range(5)] == [content(number, number + 1000) for number in range(5)]
    assert len(proxy.exchanges) == 1 + 5  # one page of a listing


@pytest.mark.parametrize("mmap", [None, False])
def test_torch_load_of_many_parts(
    s3_server: S3Server, bucket: str, client: S3Client, proxy: RecordingProxy, mmap: bool | None
) -> None:
    generator = torch.Generator().manual_seed(0)
    saved = {f"large.{number}": torch.randn(1_700_000 + number, generator=generator) for number in range(6)}
    saved |= {f"small.{number}": torch.randn(300, generator=generator) for number in range(40)}
    path = s3_server.folder / bucket / "key"
    torch.save(saved, path)
    size = path.stat().st_size
    with open_object(client, bucket) as reader:
        loaded = torch.load(reader, weights_only=True, mmap=mmap)
    assert all(torch.equal(value, loaded[name]) for name, value in saved.items())
    assert len(proxy.exchanges) <= size / PART + 8
    assert fetched_again(ranges_of(proxy, size)) <= MIB


@pytest.mark.parametrize("policy", POLICIES)
def test_reading_the_tail_of_a_huge_object(far: S3Client, large: VirtualObject, policy: str) -> None:
    with open_object(far, "bucket", reader_constructor=POLICIES[policy]) as reader:
        start = reader.seek(-64 * KIB, os.SEEK_END)
        assert reader.read() == content(start, large.size)
    assert large.transferred < MIB or policy == "range_based"  # which fetches its 8 MiB
    assert len(large.served) <= 2


def test_a_torch_archive_is_read_ahead_during_its_directory(
    s3_server: S3Server, bucket: str, proxy: RecordingProxy
) -> None:
    data = archive_of_torch(content(0, 4 * PART) * 3)
    (s3_server.folder / bucket / "key").write_bytes(data)
    begun = threading.Event()
    in_time: list[bool] = []

    def hook(request: ReceivedRequest) -> None:
        start, stop = asked(request.range, len(data)) or (0, 0)
        if stop == len(data) and stop - start < MIB:
            in_time.append(begun.wait(30))  # the directory's response waits for the request of what it describes
        elif start == PART:
            begun.set()

    proxy.misbehave = hook
    with client_of(proxy.endpoint, memory_budget=4 * PART) as client, open_object(client, bucket) as reader:
        assert reader.read(4) == b"PK\3\4"
        reader.seek(-100, os.SEEK_END)
        assert reader.read() == data[-100:]
        reader.seek(0)
        assert reader.read(100) == data[:100]
        whole = bytearray(len(data) - 100)
        assert reader.readinto(whole) == len(whole)
        assert whole == data[100:]
    assert in_time == [True]
    assert fetched_again(ranges_of(proxy, len(data))) == 0
    assert len(proxy.of("GET")) <= 12 + 2


def test_the_directory_of_a_torch_archive_comes_at_once_while_read_ahead_has_all_memory(
    s3_server: S3Server, bucket: str, proxy: RecordingProxy
) -> None:
    data = archive_of_torch(content(0, 4 * PART) * 3)
    (s3_server.folder / bucket / "key").write_bytes(data)
    was_read = threading.Event()
    in_time: list[bool] = []

    def hook(request: ReceivedRequest) -> None:
        start, stop = asked(request.range, len(data)) or (0, 0)
        if stop - start > MIB:
            in_time.append(was_read.wait(30))  # what is read ahead comes after the directory was read

    proxy.misbehave = hook
    with client_of(proxy.endpoint, memory_budget=256 * KIB + 16 * MIB) as client, open_object(client, bucket) as reader:
        assert reader.read(4) == b"PK\3\4"
        assert client._runtime().budget.is_full
        for before_end, length in ((22, 22), (98, 20), (5000, 46), (4954, 200), (4000, 1000)):
            start = reader.seek(-before_end, os.SEEK_END)
            assert reader.read(length) == data[start : start + length]
        was_read.set()
        reader.seek(0)
        whole = bytearray(len(data))
        assert reader.readinto(whole) == len(whole)
        assert whole == data
    assert in_time
    assert all(in_time)
    small = [start for start, stop in ranges_of(proxy, len(data)) if stop - start < MIB]
    assert sorted(small) == [0, len(data) - 256 * KIB]


@pytest.mark.parametrize(
    "beginning",
    [
        archive_of_torch(bytes(1000), b"word/document.xml"),
        archive_of_torch(bytes(1000)).replace(b"PK", b"KP"),
        archive_of_torch(bytes(1000))[:40],
        b"PK\3\4",
        b"",
    ],
)
def test_only_torch_archives_are_read_ahead_from_a_first_read(
    s3_server: S3Server, bucket: str, client: S3Client, proxy: RecordingProxy, beginning: bytes
) -> None:
    data = beginning + content(len(beginning), 4 * PART)
    (s3_server.folder / bucket / "key").write_bytes(data)
    with open_object(client, bucket) as reader:
        reader.read(4)
        reader.seek(-100, os.SEEK_END)
        assert reader.read() == data[-100:]
    assert len(proxy.of("GET")) == 2


def test_a_look_into_a_torch_archive_keeps_no_memory(s3_server: S3Server, bucket: str, client: S3Client) -> None:
    """And bytes that were fetched ahead and never read are within the budget."""
    data = archive_of_torch(content(0, 4 * PART) * 3)
    (s3_server.folder / bucket / "key").write_bytes(data[:-1])
    budget = client._runtime().budget
    with open_object(client, bucket) as reader:
        for start in (0, 11 * PART, 3 * PART, 7 * PART, 10):
            reader.seek(start)
            assert reader.read(100) == data[start : start + 100]
            assert budget.taken <= budget.limit + PART
    client.close()
    assert budget.taken == 0


def test_zip_directory_of_a_huge_object(far: S3Client, large: VirtualObject) -> None:
    """An archive's end is searched for with a few small reads, which one request serves."""
    with open_object(far, "bucket") as reader, pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(reader)
    assert len(large.served) == 1
    assert large.transferred < MIB


@pytest.mark.parametrize("policy", ["default", "range_based-0", "dcp_optimized-0"])
def test_scattered_small_reads_transfer_little(far: S3Client, large: VirtualObject, policy: str) -> None:
    constructor = POLICIES.get(policy, S3ReaderConstructor.dcp_optimized(0))
    places = random.Random(7).sample(range(0, large.size, 64 * MIB), 40)
    with open_object(far, "bucket", reader_constructor=constructor) as reader:
        for place in places:
            reader.seek(place)
            assert reader.read(1000) == content(place, place + 1000)
    most = 1000 if policy == "range_based-0" else 256 * KIB
    assert large.transferred <= (len(places) + 1) * most
    assert len(large.served) <= len(places) + 1


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("piece", [100 * KIB, MIB, PART, 6 * MIB])
def test_reading_in_order_fetches_each_byte_once(large: VirtualObject, far: S3Client, policy: str, piece: int) -> None:
    large.size = 50 * MIB + 77
    with open_object(far, "bucket", reader_constructor=POLICIES[policy]) as reader:
        start = 0
        while data := reader.read(piece):
            assert data == content(start, start + len(data))
            start += len(data)
    assert start == large.size
    assert fetched_again(large.served) == 0
    assert large.transferred == large.size
    if policy in ("default", "sequential"):
        assert len(large.served) <= large.size / PART + 12


def test_skipping_forward_keeps_reading_ahead(large: VirtualObject, far: S3Client) -> None:
    """``dcp_optimized``: a few tensors are left out, and the rest still comes in parts, each once."""
    large.size = 60 * MIB
    gap = 300 * KIB
    with open_object(far, "bucket", reader_constructor=S3ReaderConstructor.dcp_optimized(MIB)) as reader:
        start = 0
        while data := reader.read(700 * KIB):
            assert data == content(start, start + len(data))
            start = reader.seek(gap, os.SEEK_CUR)
    assert fetched_again(large.served) == 0
    assert len(large.served) <= large.size / PART + 16


def test_a_buffer_serves_small_reads_close_to_each_other(large: VirtualObject, far: S3Client) -> None:
    with open_object(far, "bucket", reader_constructor=S3ReaderConstructor.range_based(MIB)) as reader:
        reader.seek(7 * PART)
        for start in range(7 * PART, 7 * PART + MIB, 10 * KIB):
            stop = min(start + 10 * KIB, 7 * PART + MIB)
            assert reader.read(stop - start) == content(start, stop)
        reader.seek(7 * PART + 123)  # back
        assert reader.read(5) == content(7 * PART + 123, 7 * PART + 128)
    assert len(large.served) == 2  # the first told the size, which seek() needs
    assert large.transferred <= 2 * MIB


def test_a_stream_of_a_range_fetches_that_range(large: VirtualObject, far: S3Client) -> None:
    """What custom reader constructors are given: nothing after ``end`` is fetched."""
    got: list[Any] = []

    def constructor(bucket: str, key: str, get_object_info: Any, get_stream: Any) -> Any:
        got.append(get_stream)
        return io.BytesIO()

    far.get_object("bucket", "key", reader_constructor=constructor)
    start, stop = PART - 10, 3 * PART + 10
    assert b"".join(got[0](start, stop)) == content(start, stop)
    assert large.transferred == stop - start
    assert fetched_again(large.served) == 0


def test_records_at_random_are_soon_fetched_as_they_are(large: VirtualObject, far: S3Client) -> None:
    """A head that tells the length, and a body, and another record elsewhere: two reads in order promise no third."""
    places = random.Random(7).sample(range(0, large.size - 100 * MIB, 100 * MIB), 30)
    with open_object(far, "bucket") as reader:
        for place in places:
            for start, count in ((place, 64), (place + 64, MIB)):
                reader.seek(start)
                assert reader.read(count) == content(start, start + count)
        assert large.transferred < 3 * len(places) * MIB
        sent, place = large.transferred, 50 * MIB
        reader.seek(place)
        for start in range(place, place + 20 * MIB, MIB):  # a reader that goes on reading is trusted again
            assert reader.read(MIB) == content(start, start + MIB)
    assert large.transferred - sent > 40 * MIB
