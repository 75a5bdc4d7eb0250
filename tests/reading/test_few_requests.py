"""Costs that stay in proportion: to what is read, and not to how it is asked for."""

from __future__ import annotations

import io
import random
import time
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from s3torchconnector._s3client import S3Client
from s3torchconnector.s3reader import S3ReaderConstructor
from s3torchconnector.testing import S3Server
from tests.reading.support import KIB, MIB, VirtualObject, client_of, content, open_object
from tests.servers.proxy import RecordingProxy
from tests.servers.scripted import ScriptedServer

_BLIND = 16  # requests before an object's size is known


@pytest.fixture
def virtual() -> VirtualObject:
    return VirtualObject(100 * MIB)


@pytest.fixture
def client(virtual: VirtualObject) -> Iterator[S3Client]:
    with ScriptedServer(handler=virtual) as server, client_of(server.endpoint, unsigned=True) as client:
        yield client


@pytest.mark.parametrize("size", [1, 1000, 6 * MIB])
def test_a_large_buffer_for_a_small_object_costs_few_requests(
    client: S3Client, virtual: VirtualObject, size: int
) -> None:
    virtual.size = size
    buffer = bytearray(256 * MIB)
    with open_object(client, "bucket") as reader:
        assert reader.readinto(buffer) == size
    assert buffer[:size] == content(0, size)
    assert len([each for each in virtual.requests if each.method == "GET"]) <= _BLIND


def test_a_large_object_of_unknown_size_is_read_whole(client: S3Client, virtual: VirtualObject) -> None:
    """Also what was not asked for until its size was known, and what begins in the middle."""
    for start in (0, 3 * MIB):
        buffer = bytearray(120 * MIB)
        with open_object(client, "bucket") as reader:
            if start:
                reader.seek(start)
            assert reader.readinto(buffer) == virtual.size - start
        for place in range(start, virtual.size, 20 * MIB):
            stop = min(virtual.size, place + 20 * MIB)
            assert buffer[place - start : stop - start] == content(place, stop)


@pytest.mark.parametrize("step", [64 * KIB, MIB])
def test_reading_backwards_makes_large_requests(client: S3Client, virtual: VirtualObject, step: int) -> None:
    with open_object(client, "bucket") as reader:
        for place in range(virtual.size - step, virtual.size - 40 * MIB, -step):
            reader.seek(place)
            assert reader.read(step) == content(place, place + step)
    assert len(virtual.served) <= 20
    assert virtual.transferred <= 50 * MIB


def test_reading_a_little_backwards_far_apart_fetches_little(client: S3Client, virtual: VirtualObject) -> None:
    with open_object(client, "bucket") as reader:
        for place in range(virtual.size - MIB, 0, -MIB):
            reader.seek(place)
            assert reader.read(KIB) == content(place, place + KIB)
    assert virtual.transferred <= 100 * 300 * KIB


def test_random_members_of_a_zip_file_fetch_it_about_once(
    s3_server: S3Server, bucket: str, proxy: RecordingProxy
) -> None:
    chosen = random.Random(5)
    members = {str(number): chosen.randbytes(40 * KIB) for number in range(400)}
    path = s3_server.folder / bucket / "key"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with client_of(proxy.endpoint) as client, open_object(client, bucket) as reader, zipfile.ZipFile(reader) as archive:
        for name in chosen.choices(list(members), k=400):
            assert archive.read(name) == members[name]
    assert sum(get.body_bytes for get in proxy.of("GET")) <= 1.5 * path.stat().st_size


def _seconds(read: Callable[[], Any]) -> float:
    before = time.process_time()
    read()
    return time.process_time() - before


def test_lines_cost_about_as_much_as_those_of_a_text_wrapper(s3_server: S3Server, bucket: str) -> None:
    lines = [b"%060d\n" % number for number in range(40_000)]
    (s3_server.folder / bucket / "key").write_bytes(b"".join(lines))
    with client_of(s3_server.endpoint) as client:
        assert list(open_object(client, bucket)) == lines
        ours = min(_seconds(lambda: list(open_object(client, bucket))) for _ in range(3))
        theirs = min(_seconds(lambda: list(io.TextIOWrapper(open_object(client, bucket)))) for _ in range(3))
    assert ours < 12 * theirs


@pytest.mark.parametrize("kind", ["default", "range_based"])
def test_lines_and_other_reads_alternate(client: S3Client, virtual: VirtualObject, kind: str) -> None:
    """Whatever was read to find a line in: the next read goes on after the line."""
    expected = io.BytesIO(content(0, 6 * MIB))
    virtual.size = 6 * MIB
    chosen = random.Random(3)
    with open_object(client, "bucket", reader_constructor=getattr(S3ReaderConstructor, kind)()) as reader:
        for _ in range(300):
            how = chosen.choice(["line", "some", "read", "seek", "peek"])
            if how == "line":
                assert reader.readline() == expected.readline()
            elif how == "some":
                limit = chosen.randrange(300)
                assert reader.readline(limit) == expected.readline(limit)
            elif how == "read":
                count = chosen.choice([1, 1000, 100 * KIB])
                assert reader.read(count) == expected.read(count)
            elif how == "seek":
                place = chosen.randrange(virtual.size)
                assert reader.seek(place) == expected.seek(place)
            else:
                here = expected.getvalue()[expected.tell() :]
                assert here.startswith(reader.peek(10)[:10])
            assert reader.tell() == expected.tell()
