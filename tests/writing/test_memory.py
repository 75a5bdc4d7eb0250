"""Writers hold what S3 makes them hold, and no more, however many are open."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from s3torchconnector import S3ClientConfig
from s3torchconnector._config import KIB, MIB, MIN_PART_SIZE
from s3torchconnector._s3client import S3Client
from tests.servers.proxy import RecordingProxy
from tests.writing.support import is_part, is_put, matching, noise, read_back, writer_of

BUDGET = 8 * MIB


@pytest.fixture
def client(proxy: RecordingProxy) -> Iterator[S3Client]:
    """A client of a small budget, of which nothing is taken at the end."""
    config = S3ClientConfig(memory_budget=BUDGET)
    with S3Client("us-east-1", endpoint=proxy.endpoint, s3client_config=config) as client:
        budget = client._runtime().budget
        yield client
        assert budget.taken == 0


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_open_writers_hold_the_smallest_part_each(
    client: S3Client, bucket: str, proxy: RecordingProxy, kind: type[bytes] | type[bytearray]
) -> None:
    """One thread has all of them open: none can wait for another to end."""
    budget, data = client._runtime().budget, noise(7 * MIB)
    writers = [writer_of(client, bucket, str(number)) for number in range(8)]
    for start in range(0, len(data), MIB):
        for writer in writers:
            writer.write(kind(data[start : start + MIB]))
            assert budget.taken <= BUDGET + len(writers) * MIN_PART_SIZE
    for writer in writers:
        writer.close()
    assert all(read_back(client, bucket, str(number)) == data for number in range(8))
    sizes = [each.request_bytes for each in matching(proxy, is_part)]
    assert sizes.count(MIN_PART_SIZE) >= 4  # sent before it was full, for want of room
    assert set(sizes) <= {MIN_PART_SIZE, len(data) - MIN_PART_SIZE}


def test_small_writers_take_little_memory_if_none_is_free(client: S3Client, bucket: str) -> None:
    budget = client._runtime().budget
    writers = [writer_of(client, bucket, str(number)) for number in range(40)]
    for writer in writers:
        writer.write(bytearray(KIB))
    assert budget.taken <= BUDGET + len(writers) * 64 * KIB
    for writer in writers:
        writer.close()


def test_a_writer_alone_sends_whole_parts(client: S3Client, bucket: str, proxy: RecordingProxy) -> None:
    """Its own parts make room for it: it waits, and sends none early."""
    with writer_of(client, bucket) as writer:
        for _ in range(24):
            writer.write(bytearray(MIB))
    assert [each.request_bytes for each in matching(proxy, is_part)] == [8 * MIB] * 3
    assert not matching(proxy, is_put)


def test_a_writer_has_idle_readers_release_memory(client: S3Client, bucket: str) -> None:
    budget = client._runtime().budget
    budget.idle_after = 0.0
    with writer_of(client, bucket, "read") as writer:
        writer.write(noise(6 * MIB))
    reader = client.get_object(bucket, "read")
    reader.prefetch()
    reader.read(KIB)
    held = budget.taken
    assert held > 0
    with writer_of(client, bucket, "written") as writer:
        writer.write(bytearray(7 * MIB))
        assert budget.taken <= BUDGET
    assert reader.read() == noise(6 * MIB)[KIB:]
    reader.close()
