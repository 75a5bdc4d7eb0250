"""What the tests of writing share: clients, and what the recording proxy says about uploads."""

from __future__ import annotations

import functools
import random
import re
import threading
from collections.abc import Callable

from s3torchconnector import S3ClientConfig, S3Writer
from s3torchconnector import _wire as wire
from s3torchconnector._config import KIB, MIB
from s3torchconnector._errors import S3NotFoundError
from s3torchconnector._s3client import S3Client
from tests.servers.http_messages import ReceivedRequest
from tests.servers.proxy import Fault, RecordedExchange, RecordingProxy, StallBody

REGION = "us-east-1"
PART = 5 * MIB
SMALL_PARTS = S3ClientConfig(part_size=PART)
SIZES = {"small": KIB, "large": 17 * MIB}  # bytes of the two writers that are interrupted
PREVIOUS = b"the previous checkpoint"
STORED_BY = {"one request": 1000, "multipart": 2 * PART + 7}  # bytes of an object


def client_of(endpoint: str, config: S3ClientConfig | None = SMALL_PARTS) -> S3Client:
    return S3Client(REGION, endpoint=endpoint, s3client_config=config)


def writer_of(client: S3Client, bucket: str, key: str = "key") -> S3Writer:
    return S3Writer(client.put_object(bucket, key))


def save(client: S3Client, bucket: str, size: int, key: str = "key") -> bytes:
    """Store an object of this size and return its bytes."""
    data = noise(size)
    with writer_of(client, bucket, key) as writer:
        writer.write(data)
    return data


def read_back(client: S3Client, bucket: str, key: str = "key") -> bytes:
    with client.get_object(bucket, key) as reader:
        return reader.read()


@functools.lru_cache(8)
def noise(size: int, seed: int = 0) -> bytes:
    """Bytes in which a part in the wrong place shows."""
    return random.Random(seed).randbytes(size)


def is_create(request: ReceivedRequest) -> bool:
    return request.method == "POST" and "uploads" in request.query


def is_part(request: ReceivedRequest) -> bool:
    return request.method == "PUT" and "partNumber" in request.query


def is_complete(request: ReceivedRequest) -> bool:
    return request.method == "POST" and "uploadId" in request.query


def is_abort(request: ReceivedRequest) -> bool:
    return request.method == "DELETE" and "uploadId" in request.query


def is_end(request: ReceivedRequest) -> bool:
    return is_complete(request) or is_abort(request)


def is_put(request: ReceivedRequest) -> bool:
    return request.method == "PUT" and "partNumber" not in request.query


def stores_object(request: ReceivedRequest) -> bool:
    """Whether it makes the object appear."""
    return is_put(request) or is_complete(request)


def matching(proxy: RecordingProxy, kind: Callable[[ReceivedRequest], bool]) -> list[RecordedExchange]:
    return [each for each in proxy.exchanges if kind(each.request)]


def uploads_of(client: S3Client, bucket: str) -> list[str]:
    """The ids of the multipart uploads that the server holds for a bucket (its first 1,000)."""
    request = wire.Request("ListMultipartUploads", "GET", bucket, query=(("uploads", ""),))
    try:
        document = client._runtime().caller.call(request, wire.read_document)
    except S3NotFoundError as error:
        if error.code == "NoSuchUpload":  # what rclone says of a bucket that never had one
            return []
        raise
    return re.findall(r"<UploadId>(.*?)</UploadId>", document.decode())


def assert_no_upload_remains(client: S3Client, bucket: str, proxy: RecordingProxy) -> None:
    """The server holds no upload, and was told of the end of every one that was created."""
    created = [each for each in matching(proxy, is_create) if each.status == 200]
    ended = {each.query["uploadId"]: each.status for each in proxy.exchanges if is_end(each.request)}
    # 404: rclone aborts an upload by itself if a part breaks off.
    assert len(created) == len(ended), f"{len(created)} uploads were created, these ended: {ended}"
    assert set(ended.values()) <= {200, 204, 404}
    assert uploads_of(client, bucket) == []


def assert_untouched(client: S3Client, bucket: str, proxy: RecordingProxy) -> None:
    assert [read_back(client, bucket, key) for key in SIZES] == [PREVIOUS] * len(SIZES)
    assert not matching(proxy, is_complete)
    assert not matching(proxy, is_put)


class PartsSeen:
    """A hook of the proxy: says when the first part arrives, and stalls the response if told to."""

    def __init__(self, stall: bool = False) -> None:
        self.arrived = threading.Event()
        self.release = threading.Event()
        self._stall = stall

    def __call__(self, request: ReceivedRequest) -> Fault | None:
        if not is_part(request):
            return None
        self.arrived.set()
        return StallBody(self.release) if self._stall else None


class Begun:
    """A hook of the proxy: ``wait`` returns once the upload has begun, if that is what the key's size leads to."""

    def __init__(self, key: str) -> None:
        self._created = threading.Event()
        if key == "small":
            self._created.set()

    def __call__(self, request: ReceivedRequest) -> None:
        if is_create(request):
            self._created.set()

    def wait(self) -> None:
        assert self._created.wait(30)


def write_and_raise(writer: S3Writer, data: bytes, error: BaseException, begun: Begun) -> None:
    with writer:
        writer.write(data)
        begun.wait()
        raise error


def assert_upload_created(proxy: RecordingProxy, key: str) -> None:
    assert len(matching(proxy, is_create)) == (1 if key == "large" else 0), "the case is not what it is meant to be"
