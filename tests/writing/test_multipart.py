"""Multipart uploads: sizes of parts within S3's limits, large objects, and a bounded amount of memory."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from s3torchconnector import S3ClientConfig
from s3torchconnector._config import GIB, MAX_PART_SIZE, MIB, MIN_PART_SIZE
from s3torchconnector._errors import S3Exception, S3UploadAbortedError
from s3torchconnector._transfer.engine._budget import BUFFER_SIZE
from s3torchconnector._transfer.writing import _put_object_stream
from s3torchconnector._transfer.writing._multipart import (
    MAX_PARTS,
    largest_upload,
    multipart_etag,
    size_of_part,
    too_large,
)
from s3torchconnector._types import HeadObjectResult
from s3torchconnector._wire import CompletedPart
from s3torchconnector.testing import S3Server
from tests.reading.support import wait_until
from tests.servers.http_messages import ReceivedRequest
from tests.servers.moto_server import MotoServer
from tests.servers.proxy import Fault, RecordingProxy, StallBody
from tests.writing.support import (
    PART,
    Begun,
    assert_no_upload_remains,
    client_of,
    is_create,
    is_part,
    matching,
    noise,
    read_back,
    writer_of,
)

_FIVE_TEBIBYTES = 5 * 1024 * GIB


@given(st.integers(MIN_PART_SIZE, MAX_PART_SIZE))
@example(MIN_PART_SIZE)
@example(8 * MIB)
@example(MAX_PART_SIZE)
def test_parts_reach_five_tebibytes_within_the_limits(part_size: int) -> None:
    sizes = [size_of_part(number, part_size) for number in range(1, MAX_PARTS + 1)]
    assert MAX_PARTS == 10_000
    assert sizes[0] == part_size
    assert all(MIN_PART_SIZE <= size <= MAX_PART_SIZE for size in sizes)
    assert all(earlier <= later for earlier, later in pairwise(sizes))
    assert sum(sizes) >= _FIVE_TEBIBYTES
    assert largest_upload(part_size) == sum(sizes)
    assert largest_upload(MAX_PART_SIZE) == MAX_PARTS * MAX_PART_SIZE


def test_growing_parts_are_used(
    s3_server: S3Server, bucket: str, proxy: RecordingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    growth = [PART, PART, 7 * MIB, 9 * MIB, 9 * MIB]
    monkeypatch.setattr(_put_object_stream, "size_of_part", lambda number, part_size: growth[number - 1])
    data = noise(sum(growth[:4]) + 5)
    with client_of(proxy.endpoint) as client:
        with writer_of(client, bucket) as writer:
            for piece in (data[:MIB], data[MIB : 13 * MIB], data[13 * MIB :]):
                writer.write(bytearray(piece))
        assert read_back(client, bucket) == data
    parts = {int(each.query["partNumber"]): each.request_bytes for each in matching(proxy, is_part)}
    assert [parts[number] for number in sorted(parts)] == [*growth[:4], 5]


def test_the_first_byte_too_many_is_an_error_with_advice(
    s3_server: S3Server, bucket: str, proxy: RecordingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not when it has filled a part that S3 would not take, of up to 5 GiB, and not only at ``close``."""
    monkeypatch.setattr(_put_object_stream, "MAX_PARTS", 2)
    with client_of(proxy.endpoint) as client:
        with writer_of(client, bucket) as writer:
            writer.write(noise(2 * PART))
        assert read_back(client, bucket) == noise(2 * PART)
        writer = writer_of(client, bucket)
        writer.write(bytes(2 * PART))
        with pytest.raises(S3Exception, match=f"key has more bytes than .* Raise part_size .* now {PART},") as caught:
            writer.write(b"1")
        assert (caught.value.bucket, caught.value.key) == (bucket, "key")
        with pytest.raises(S3UploadAbortedError, match="was aborted"):
            writer.close()
        assert read_back(client, bucket) == noise(2 * PART)
        assert_no_upload_remains(client, bucket, proxy)


def test_no_larger_parts_are_advised_than_there_are() -> None:
    assert "Raise part_size" in str(too_large("b", "k", MAX_PART_SIZE - 1))
    assert "Raise part_size" not in str(too_large("b", "k", MAX_PART_SIZE))
    assert "split it" in str(too_large("b", "k", MAX_PART_SIZE))


def test_the_etag_of_a_multipart_object_is_s3s(moto_server: MotoServer, moto_bucket: str) -> None:
    with client_of(moto_server.endpoint) as client:
        with writer_of(client, moto_bucket) as writer:
            writer.write(noise(2 * PART + 3))
        head: HeadObjectResult = client.head_object(moto_bucket, "key")
    assert head.etag.endswith('-3"')
    md5s = _md5_parts(noise(2 * PART + 3))
    assert multipart_etag(md5s) == head.etag
    assert multipart_etag([CompletedPart(1, '"not an MD5"')]) is None
    assert multipart_etag([CompletedPart(1, '"abcd"')]) is None


def _md5_parts(data: bytes) -> list[CompletedPart]:
    pieces = [data[start : start + PART] for start in range(0, len(data), PART)]
    return [CompletedPart(i, f'"{hashlib.md5(piece).hexdigest()}"') for i, piece in enumerate(pieces, start=1)]


def test_100_mib_saved_and_loaded_in_bounded_memory(s3_server: S3Server, bucket: str) -> None:
    budget = 24 * MIB
    config = S3ClientConfig(part_size=PART, memory_budget=budget)
    block = noise(2 * MIB + 1)
    blocks = 100 * MIB // len(block)
    with client_of(s3_server.endpoint, config) as client:
        taken = []
        with writer_of(client, bucket) as writer:
            for number in range(blocks):
                # in turn, what can be kept as it is and what must be copied; each block with a mark of its own
                piece = number.to_bytes(4, "big") + block
                writer.write(piece if number % 2 else bytearray(piece))
                taken.append(client._runtime().budget.taken)
        assert max(taken) <= budget
        assert client._runtime().budget.taken == 0
        with client.get_object(bucket, "key") as reader:
            for number in range(blocks):
                assert reader.read(len(block) + 4) == number.to_bytes(4, "big") + block
            assert reader.read() == b""
        assert client.head_object(bucket, "key").size == blocks * (len(block) + 4)


class Gate:
    """A hook of the proxy that holds the responses to parts back until it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.arrived = threading.Semaphore(0)

    def __call__(self, request: ReceivedRequest) -> Fault | None:
        if not is_part(request):
            return None
        self.arrived.release()
        return StallBody(self.opened)


@pytest.fixture
def gate(proxy: RecordingProxy) -> Iterator[Gate]:
    gate = Gate()
    proxy.misbehave = gate
    yield gate
    gate.opened.set()


def test_parts_go_up_while_the_program_goes_on(bucket: str, proxy: RecordingProxy, gate: Gate) -> None:
    with client_of(proxy.endpoint) as client, writer_of(client, bucket) as writer:
        writer.write(noise(3 * PART + 1))  # returns although no part has a response
        for _ in range(3):
            assert gate.arrived.acquire(timeout=30)
        assert writer.tell() == 3 * PART + 1
        gate.opened.set()
    assert len(matching(proxy, is_create)) == 1


@pytest.mark.parametrize("ends", ["close", "abort"])
def test_an_upload_that_expects_several_parts_begins_with_its_first_byte(
    bucket: str, proxy: RecordingProxy, ends: str
) -> None:
    begun = Begun("large")
    proxy.misbehave = begun
    with client_of(proxy.endpoint) as client:
        stream = client.put_object(bucket, "key").stream
        stream.expect(3 * PART)
        stream.write(b"1")
        begun.wait()
        getattr(stream, ends)()
        if ends == "close":  # fewer came than were expected
            assert read_back(client, bucket) == b"1"
        assert_no_upload_remains(client, bucket, proxy)


def test_an_expected_upload_of_nothing_is_one_request(bucket: str, proxy: RecordingProxy) -> None:
    with client_of(proxy.endpoint) as client:
        with client.put_object(bucket, "key") as writer:
            writer.stream.expect(3 * PART)
        assert read_back(client, bucket) == b""
    assert not matching(proxy, is_create)


def test_parts_are_summed_while_the_response_with_the_id_is_on_its_way(bucket: str, proxy: RecordingProxy) -> None:
    release = threading.Event()
    proxy.misbehave = lambda request: StallBody(release) if is_create(request) else None
    with client_of(proxy.endpoint) as client, writer_of(client, bucket) as writer:
        writer.write(noise(2 * PART + 1))
        summed = writer.stream._requests._checksums._parts
        try:
            wait_until(lambda: set(summed) == {1, 2})
            assert not matching(proxy, is_part)
        finally:
            release.set()


def test_parts_that_never_started_do_not_hide_the_reason(bucket: str, proxy: RecordingProxy, gate: Gate) -> None:
    """Four parts run at a time; those that wait for their turn are cancelled, which is no error of its own."""
    config = S3ClientConfig(throughput_target_gbps=0.1, part_size=PART)
    with client_of(proxy.endpoint, config) as client:
        stream = client.put_object(bucket, "key").stream
        stream.write(noise(10 * PART))
        for _ in range(client._runtime().streams):
            assert gate.arrived.acquire(timeout=30)
        stream.abort()
        for attempt in (lambda: stream.write(b"more"), stream.close):
            with pytest.raises(S3UploadAbortedError, match="was aborted"):
                attempt()
        assert client._runtime().budget.taken == 0
        assert not gate.arrived.acquire(blocking=False), "no other part was sent"


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_a_writer_waits_when_the_budget_is_used_up(
    bucket: str, proxy: RecordingProxy, gate: Gate, kind: type[bytes] | type[bytearray]
) -> None:
    budget = 6 * BUFFER_SIZE  # three parts that are copied, each into two blocks
    config = S3ClientConfig(part_size=PART, memory_budget=budget)
    written = threading.Event()
    with client_of(proxy.endpoint, config) as client:

        def save() -> None:
            with writer_of(client, bucket) as writer:
                writer.write(kind(noise(6 * PART)))
                written.set()

        thread = threading.Thread(target=save)
        thread.start()
        for _ in range(2):  # parts that are on their way; the third is full or being filled
            assert gate.arrived.acquire(timeout=30)
        assert not written.is_set()
        assert client._runtime().budget.taken <= budget
        gate.opened.set()
        thread.join(60)
        assert written.is_set()
        assert client._runtime().budget.taken == 0
        assert read_back(client, bucket) == noise(6 * PART)


def test_a_part_larger_than_the_budget_is_still_sent(s3_server: S3Server, bucket: str) -> None:
    config = S3ClientConfig(part_size=PART, memory_budget=1)
    with client_of(s3_server.endpoint, config) as client:
        with writer_of(client, bucket) as writer:
            writer.write(noise(PART))
            writer.write(bytearray(noise(2 * PART + 1)))
        assert read_back(client, bucket) == noise(PART) + noise(2 * PART + 1)
        assert client._runtime().budget.taken == 0


def test_many_writers_share_one_client(s3_server: S3Server, bucket: str) -> None:
    config = S3ClientConfig(part_size=PART, memory_budget=4 * PART)
    with client_of(s3_server.endpoint, config) as client:

        def save(number: int) -> None:
            with writer_of(client, bucket, f"key-{number}") as writer:
                for start in range(0, 11 * MIB, MIB):
                    writer.write(bytearray(noise(11 * MIB, seed=number)[start : start + MIB]))

        threads = [threading.Thread(target=save, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert all(read_back(client, bucket, f"key-{number}") == noise(11 * MIB, seed=number) for number in range(6))
        assert client._runtime().budget.taken == 0
