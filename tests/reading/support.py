"""What the tests of reading share: clients, objects with known bytes, and a server of objects of any size."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from s3torchconnector import S3ClientConfig
from s3torchconnector._s3client import S3Client
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.scripted import Send

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
PART = 5 * MIB  # the smallest part size there is

_PERIOD = 1_000_003  # prime, so that bytes from a wrong place never look right
_MOST = 20 * MIB  # bytes of one response
_ONE_PIECE = 64 * KIB  # to copy so many bytes costs less than to send twice
_TIMEOUT = 30.0  # seconds
_TILE = random.Random(1).randbytes(_PERIOD) * (_MOST // _PERIOD + 2)


def content(start: int, stop: int) -> bytes:
    """Bytes ``start`` up to ``stop`` of an endless object that every test knows."""
    return bytes(_view(start, stop))


def _view(start: int, stop: int) -> memoryview:
    """``content`` without a copy."""
    assert stop - start <= _MOST
    return memoryview(_TILE)[start % _PERIOD : start % _PERIOD + max(0, stop - start)]


def client_of(endpoint: str, **settings: Any) -> S3Client:
    """A client with the smallest parts, and settings of ``S3ClientConfig``."""
    config = S3ClientConfig(**{"part_size": PART, **settings})
    return S3Client("us-east-1", endpoint=endpoint, s3client_config=config)


def open_object(client: S3Client, bucket: str, key: str = "key", **arguments: Any) -> Any:
    """A reader; ``Any`` since tests hand it to libraries that declare other file types."""
    return client.get_object(bucket, key, **arguments)


def archive_of_torch(data: bytes, name: bytes = b"checkpoint/data.pkl") -> bytes:
    """``data`` with a beginning as that of an archive by ``torch.save``."""
    beginning = b"PK\3\4" + bytes(22) + len(name).to_bytes(2, "little") + bytes(2) + name
    return beginning + data[len(beginning) :]


def put(client: S3Client, bucket: str, key: str, data: bytes) -> None:
    stream = client.put_object(bucket, key)
    stream.write(data)
    stream.close()


def asked(range_header: str | None, size: int) -> tuple[int, int] | None:
    """The half-open range that a Range header selects of ``size`` bytes; None if there is nothing to select."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", range_header or "bytes=0-")
    assert match is not None, range_header
    if not match[1]:
        start, stop = max(0, size - int(match[2])), size
    else:
        start, stop = int(match[1]), min(size, int(match[2]) + 1 if match[2] else size)
    return (start, stop) if start < stop else None


@dataclass
class VirtualObject:
    """Responds to GET and HEAD, as the handler of a ``ScriptedServer``, for an object that takes no memory.

    Attributes:
        size, etag: change them to have the object overwritten.
        shift: the place in the endless object where this version begins.
        before: called with each request; what it returns, if anything, is the response.
        served: the half-open ranges that were sent.
        requests: all of them, in the order of arrival.
    """

    size: int
    etag: str = '"one"'
    shift: int = 0
    honours_if_match: bool = True
    before: Callable[[ReceivedRequest], Any] = lambda request: None
    served: list[tuple[int, int]] = field(default_factory=list)
    requests: list[ReceivedRequest] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, request: ReceivedRequest) -> Any:
        self.requests.append(request)
        special = self.before(request)
        if special is not None:
            return special
        if request.method == "HEAD":
            return response(200, headers={"Content-Length": str(self.size), "ETag": self.etag})
        wanted = request.headers.get("if-match")
        if self.honours_if_match and wanted and (wanted != self.etag or wanted.startswith("W/")):
            return s3_error(412, "PreconditionFailed")
        selected = asked(request.range, self.size)
        if selected is None:
            return response(416, headers={"Content-Range": f"bytes */{self.size}"})
        with self._lock:
            self.served.append(selected)
        start, stop = selected
        headers = {"ETag": self.etag, "Content-Range": f"bytes {start}-{stop - 1}/{self.size}"}
        body = _view(self.shift + start, self.shift + stop)
        head = response(206, headers={"Content-Length": str(len(body)), **headers})
        return head + body if len(body) < _ONE_PIECE else [Send(head, body)]

    @property
    def transferred(self) -> int:
        return sum(stop - start for start, stop in self.served)


def fetched_again(ranges: list[tuple[int, int]]) -> int:
    """How many bytes were in more than one of these ranges, counted once for each unnecessary transfer."""
    again, reached = 0, 0
    for start, stop in sorted(ranges):
        again += max(0, min(stop, reached) - start)
        reached = max(reached, stop)
    return again


def wait_until(condition: Callable[[], bool]) -> None:
    """For what nobody announces: only the memory shows that a receive into it is running."""
    deadline = time.monotonic() + _TIMEOUT
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert condition()
