"""The trace of requests: each one that a server received is in it, with times in order, also failed and hedged ones."""

from __future__ import annotations

import threading
from collections import Counter
from itertools import pairwise

import pytest

from s3torchconnector import S3IterableDataset, S3Reader
from s3torchconnector._s3client import S3Client
from s3torchconnector._wire import TracedRequest, tracing
from s3torchconnector.testing import S3Server
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.proxy import CutBody, Drop, RecordingProxy, Replace
from tests.servers.scripted import ScriptedServer
from tests.wire.support import REGION

_METHODS = {"GetObject": "GET", "ListObjectsV2": "GET", "PutObject": "PUT", "UploadPart": "PUT", "HeadObject": "HEAD"}
_MIB = 1024**2


def check_times(records: list[TracedRequest]) -> None:
    """Each has its times in order, and no connection has two at a time."""
    for each in records:
        first_byte = each.ended if each.first_byte is None else each.first_byte
        assert each.asked <= each.sent <= first_byte <= each.ended, each
    for connection in {(each.process, each.connection) for each in records}:
        in_turn = sorted([each for each in records if (each.process, each.connection) == connection], key=_sent)
        assert all(one.ended <= other.sent for one, other in pairwise(in_turn)), connection


def _sent(record: TracedRequest) -> float:
    return record.sent


def test_what_the_server_received_is_what_was_traced(proxy: RecordingProxy, s3_server: S3Server, bucket: str) -> None:
    folder = s3_server.folder / bucket / "small"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number}").write_bytes(bytes(1000 + number))
    with tracing() as records, S3Client(s3_server.region, endpoint=proxy.endpoint) as client:
        with client.put_object(bucket, "large") as writer:
            writer.write(bytes(20 * _MIB))
        assert len(client.get_object(bucket, "large").read()) == 20 * _MIB
        with pytest.raises(FileNotFoundError):
            client.head_object(bucket, "none")
        dataset = S3IterableDataset.from_prefix(
            f"s3://{bucket}/small/", region=s3_server.region, endpoint=proxy.endpoint, transform=S3Reader.read
        )
        assert sum(map(len, dataset)) == sum(range(1000, 1040))
    assert len(records) == len(proxy.exchanges)
    received = Counter((each.method, each.path, each.range or "", each.status) for each in proxy.exchanges)
    traced = Counter(
        (_method(each), f"/{each.bucket}/{each.key}".rstrip("/"), each.range, each.status) for each in records
    )
    assert traced == Counter({(m, p.rstrip("/"), r, s): n for (m, p, r, s), n in received.items()})
    of_objects = [each for each in records if each.operation == "GetObject"]  # others come chunked, with its framing
    assert sum(each.body_bytes for each in proxy.exchanges if each.range) == sum(
        each.bytes_received for each in of_objects
    )
    assert sum(each.request_bytes for each in proxy.exchanges) == sum(each.bytes_sent for each in records)
    assert ["not found" in each.failure for each in records if each.status == 404] == [True]
    check_times(records)


def _method(record: TracedRequest) -> str:
    return {"CreateMultipartUpload": "POST", "CompleteMultipartUpload": "POST"}.get(
        record.operation, _METHODS.get(record.operation, record.operation)
    )


def test_each_attempt_is_traced_with_its_number_and_failure(
    proxy: RecordingProxy, s3_server: S3Server, bucket: str, short_pauses: None
) -> None:
    (s3_server.folder / bucket / "key").write_bytes(bytes(300_000))
    faults = iter([Drop(), Replace(s3_error(500, "InternalError")), CutBody(after=100_000)])
    proxy.misbehave = lambda request: next(faults, None)
    with tracing() as records, S3Client(s3_server.region, endpoint=proxy.endpoint) as client:
        assert len(client.get_object(bucket, "key").read()) == 300_000
    assert [each.attempt for each in records] == [1, 2, 3, 4]
    assert [each.status for each in records] == [each.status for each in proxy.exchanges]
    assert [bool(each.failure) for each in records] == [True, True, True, False]
    assert records[1].failure == "InternalError"
    assert [each.first_byte is None for each in records] == [True, False, False, False]
    check_times(records)


def test_both_connections_of_a_hedged_request_are_traced(keys: None) -> None:
    late, done = threading.Event(), threading.Event()

    def answer(request: ReceivedRequest) -> bytes:
        if request.path.endswith("/late") and not late.is_set():
            late.set()
            done.wait(20.0)
        return response(206, b"12345", {"ETag": '"e"', "Content-Range": "bytes 0-4/5"})

    with (
        ScriptedServer(handler=answer) as server,
        tracing() as records,
        S3Client(REGION, endpoint=server.endpoint) as client,
    ):
        for number in range(60):
            client.get_object("b", str(number)).read()
        assert client.get_object("b", "late").read() == b"12345"
        done.set()
    lost, won = [each for each in records if each.key == "late"]
    assert (lost.status, lost.first_byte, won.status) == (None, None, 206)
    assert lost.connection != won.connection
    assert lost.sent < won.sent
    assert "other connection" in lost.failure
    assert len(records) == 62
    check_times(records)


def test_clients_opened_without_a_trace_are_not_traced(proxy: RecordingProxy, s3_server: S3Server, bucket: str) -> None:
    (s3_server.folder / bucket / "key").write_bytes(b"12345")
    with S3Client(s3_server.region, endpoint=proxy.endpoint) as client:
        client.get_object(bucket, "key").read()
        with tracing() as records:
            client.get_object(bucket, "key").read()
    assert (len(proxy.exchanges), records) == (2, [])
