"""Uploads carry the checksum of what is sent; what arrives otherwise is refused and sent again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from awscrt import checksums as native

from s3torchconnector import S3Checkpoint, S3ClientConfig, S3Exception, S3Writer
from s3torchconnector._s3client import S3Client
from s3torchconnector._wire._checksums import ALGORITHMS
from s3torchconnector.testing import S3Server
from tests.reading.support import KIB, PART, client_of, content
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.moto_server import MotoServer
from tests.servers.scripted import ScriptedServer

CRC64NVME = ALGORITHMS[0]
SMALL = content(0, 300 * KIB)
LARGE = content(0, 2 * PART + 1234)

pytestmark = pytest.mark.usefixtures("s3_server")  # for its keys


class Bucket:
    """Responds to uploads as S3 does: refuses a body that has another checksum than its header says.

    Attributes:
        requests: all of them, in the order of arrival.
        objects: what was stored.
        damaged: how many bodies to change on their way.
        refusal: the response to every request with a checksum, for a server that does not take them.
    """

    def __init__(self, damaged: int = 0, refusal: bytes | None = None) -> None:
        self.requests: list[ReceivedRequest] = []
        self.objects: dict[str, bytes] = {}
        self.damaged = damaged
        self.refusal = refusal
        self._parts: dict[int, bytes] = {}
        self._lock = threading.Lock()

    def __call__(self, request: ReceivedRequest) -> Any:
        with self._lock:
            self.requests.append(request)
            if self.refusal and any(name.startswith("x-amz-checksum") for name in request.headers):
                return self.refusal
            return self._answer(request)

    def _answer(self, request: ReceivedRequest) -> bytes:
        if "uploads" in request.query:
            return response(
                200, b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
            )
        if request.method == "DELETE":
            return response(204)
        if request.method == "HEAD":
            return response(200 if request.path in self.objects else 404)
        body = request.body
        if request.method == "POST":
            body = b"".join(self._parts[number] for number in sorted(self._parts))
        elif self.damaged:
            self.damaged -= 1
            body = b"?" + body[1:]
        said = request.headers.get(CRC64NVME.header)
        if said is not None and said != CRC64NVME.encode(native.crc64nvme(body)):
            return s3_error(400, "BadDigest")
        if "partNumber" in request.query:
            self._parts[int(request.query["partNumber"])] = body
        else:
            self.objects[request.path] = body
        document = b"<CompleteMultipartUploadResult/>" if request.method == "POST" else b""
        return response(200, document, {"ETag": '"one"'})

    def carrying(self) -> list[str | None]:
        return [request.headers.get(CRC64NVME.header) for request in self.requests]


def save(client: S3Client, data: bytes, key: str = "key") -> None:
    with S3Writer(client.put_object("b", key)) as writer:
        writer.write(data)


@pytest.mark.parametrize("damaged", [0, 1])
def test_one_put_has_a_checksum_and_is_resent_when_damaged(damaged: int) -> None:
    bucket = Bucket(damaged)
    with ScriptedServer(handler=bucket) as server, client_of(server.endpoint) as client:
        save(client, SMALL)
    assert bucket.objects == {"/b/key": SMALL}
    assert bucket.carrying() == [CRC64NVME.encode(CRC64NVME.of([SMALL]))] * (1 + damaged)


@pytest.mark.parametrize("damaged", [0, 2])
def test_a_multipart_upload_carries_checksums_of_parts_and_whole(damaged: int) -> None:
    bucket = Bucket(damaged)
    with ScriptedServer(handler=bucket) as server, client_of(server.endpoint) as client:
        save(client, LARGE)
    assert bucket.objects == {"/b/key": LARGE}
    create, *parts, complete = bucket.requests
    assert create.headers["x-amz-checksum-algorithm"] == "CRC64NVME"
    assert create.headers["x-amz-checksum-type"] == "FULL_OBJECT"
    assert len(parts) == 3 + damaged
    assert all(part.headers[CRC64NVME.header] for part in parts)
    assert complete.headers["x-amz-checksum-type"] == "FULL_OBJECT"
    assert complete.headers[CRC64NVME.header] == CRC64NVME.encode(CRC64NVME.of([LARGE]))


def test_an_object_that_always_arrives_damaged_is_an_error() -> None:
    bucket = Bucket(damaged=10**6)
    with (
        ScriptedServer(handler=bucket) as server,
        client_of(server.endpoint, max_attempts=2) as client,
        pytest.raises(S3Exception, match=r"PutObject s3://b/key: .*BadDigest.* received different bytes") as caught,
    ):
        save(client, SMALL)
    assert caught.value.code == "BadDigest"
    assert bucket.objects == {}


REFUSALS = [
    s3_error(501, "NotImplemented", "A header you provided implies functionality that is not implemented"),
    s3_error(400, "InvalidArgument", "Unsupported header 'x-amz-checksum-algorithm' received for this API call."),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=["501", "400"])
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_a_server_that_refuses_checksums_gets_only_the_first(refusal: bytes, data: bytes) -> None:
    bucket = Bucket(refusal=refusal)
    with ScriptedServer(handler=bucket) as server, client_of(server.endpoint) as client:
        save(client, data)
        save(client, data, "other")
    assert bucket.objects == {"/b/key": data, "/b/other": data}
    refused = [any(name.startswith("x-amz-checksum") for name in each.headers) for each in bucket.requests]
    assert refused == [True, *[False] * (len(refused) - 1)]


def test_required_checksums_stay_required_after_a_refusal() -> None:
    bucket = Bucket(refusal=REFUSALS[0])
    with (
        ScriptedServer(handler=bucket) as server,
        client_of(server.endpoint, checksum="required") as client,
        pytest.raises(S3Exception, match="NotImplemented"),
    ):
        save(client, SMALL)
    assert bucket.objects == {}


def test_other_refusals_are_none_of_checksums() -> None:
    bucket = Bucket(refusal=s3_error(400, "InvalidArgument", "Your storage class is unknown"))
    with (
        ScriptedServer(handler=bucket) as server,
        client_of(server.endpoint) as client,
        pytest.raises(S3Exception, match="storage class"),
    ):
        save(client, SMALL)
    assert len(bucket.requests) == 1


def test_off_sends_none() -> None:
    bucket = Bucket()
    with ScriptedServer(handler=bucket) as server, client_of(server.endpoint, checksum="off") as client:
        save(client, SMALL)
        save(client, LARGE)
    assert not any("checksum" in name for request in bucket.requests for name in request.headers)


_SUPPORTING, _REFUSING = Bucket, partial(Bucket, refusal=REFUSALS[0])


@pytest.mark.parametrize(
    ("make_bucket", "mode", "summed", "expected"),
    [
        (_SUPPORTING, "when_supported", False, True),
        (_SUPPORTING, "off", False, False),
        (_SUPPORTING, "off", True, True),
        (_REFUSING, "when_supported", False, False),
        (_REFUSING, "when_supported", True, True),
    ],
)
@pytest.mark.parametrize("data", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
def test_the_checksum_of_a_stored_object_can_be_read(
    make_bucket: Callable[[], Bucket], mode: str, summed: bool, expected: bool, data: bytes
) -> None:
    bucket = make_bucket()
    with ScriptedServer(handler=bucket) as server, client_of(server.endpoint, checksum=mode) as client:
        for _ in range(2):  # the second time, refusals are known
            stream = client.put_object("b", "key", summed=summed).stream
            with S3Writer(stream) as writer:
                writer.write(data)
                assert stream.checksum is None  # nothing is stored yet
            assert stream.checksum == (f"CRC64NVME:{CRC64NVME.encode(native.crc64nvme(data))}" if expected else None)


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_a_real_server_that_ignores_them(s3_server: S3Server, bucket: str, data: bytes) -> None:
    with client_of(s3_server.endpoint) as client:
        with S3Writer(client.put_object(bucket, "key")) as writer:
            writer.write(data)
        assert client.get_object(bucket, "key").read() == data


@pytest.mark.parametrize("mode", ["when_supported", "off"])
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_a_real_server_that_knows_some(moto_server: MotoServer, moto_bucket: str, data: bytes, mode: str) -> None:
    config = S3ClientConfig(part_size=PART, checksum=mode)
    checkpoint = S3Checkpoint("us-east-1", endpoint=moto_server.endpoint, s3client_config=config)
    with checkpoint.writer(f"s3://{moto_bucket}/key") as writer:
        writer.write(data)
    assert checkpoint.reader(f"s3://{moto_bucket}/key").read() == data
