"""A server of one object that keeps checksums of it, and changes bytes of its responses."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from s3torchconnector._wire._checksums import ALGORITHMS, Algorithm
from tests.reading.support import asked
from tests.servers.http_messages import ReceivedRequest, response, s3_error

CRC64NVME, CRC32C, CRC32 = ALGORITHMS


class ChecksummedObject:
    """Responds to GET and HEAD as S3 does: the checksum comes with the whole object, or with HEAD, to whom asks for it.

    Args:
        data: the object.
        algorithm: what it keeps; None for a server that knows no checksums.
        spoil: whether to change a byte of the response with these bytes, told their start and how often they were sent.

    Attributes:
        requests: all of them, in the order of arrival.
        spoilt: the starts of the responses that were changed.
    """

    def __init__(
        self,
        data: bytes,
        algorithm: Algorithm | None = CRC64NVME,
        spoil: Callable[[int, int], bool] = lambda start, times: False,
    ) -> None:
        self.data = data
        self.headers = {"ETag": '"one"'}
        self.requests: list[ReceivedRequest] = []
        self.spoilt: list[int] = []
        self._spoil = spoil
        self._sent: dict[int, int] = {}
        self._lock = threading.Lock()
        self.checksums: dict[str, str] = {}
        if algorithm is not None:
            self.checksums = {algorithm.header: algorithm.encode(algorithm.of([data]))}

    def __call__(self, request: ReceivedRequest) -> Any:
        with self._lock:
            self.requests.append(request)
        wants = request.headers.get("x-amz-checksum-mode") == "ENABLED"
        checksums = self.checksums if wants else {}
        size = len(self.data)
        if request.method == "HEAD":
            return response(200, headers={**self.headers, "Content-Length": str(size), **checksums})
        if request.headers.get("if-match", '"one"') != '"one"':
            return s3_error(412, "PreconditionFailed")
        selected = asked(request.range, size)
        if selected is None:
            return response(416, headers={"Content-Range": f"bytes */{size}"})
        start, stop = selected
        if (start, stop) != (0, size):
            checksums = {}
        headers = {**self.headers, "Content-Range": f"bytes {start}-{stop - 1}/{size}", **checksums}
        return response(206, self._body(start, stop), headers)

    def _body(self, start: int, stop: int) -> bytes:
        body = self.data[start:stop]
        with self._lock:
            times = self._sent[start] = self._sent.get(start, 0) + 1
            if not self._spoil(start, times):
                return body
            self.spoilt.append(start)
        middle = len(body) // 2
        return body[:middle] + bytes([body[middle] ^ 0x10]) + body[middle + 1 :]

    def count(self, method: str) -> int:
        return sum(request.method == method for request in self.requests)
