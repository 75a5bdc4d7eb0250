"""A server that changes one bit of an object, and programs that read it; whether they got it whole, and wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from s3torchconnector import S3ReaderConstructor
from s3torchconnector._errors import S3ChecksumError
from s3torchconnector._wire._checksums import Algorithm
from tests.integrity.support import CRC32, CRC32C, CRC64NVME, ChecksummedObject
from tests.reading.support import MIB, PART, client_of, content, open_object
from tests.servers.http_messages import ReceivedRequest, response
from tests.servers.scripted import ScriptedServer

SMALL = content(0, 100_000)
LARGE = content(0, 2 * PART + 1234)

KINDS = ((CRC32,), (CRC32C,), (CRC64NVME,), (CRC64NVME, CRC32), (CRC32C, CRC32))
POLICIES = {
    "default": S3ReaderConstructor.default(),
    "sequential": S3ReaderConstructor.sequential(),
    "range_based-0": S3ReaderConstructor.range_based(0),
    "range_based-1000": S3ReaderConstructor.range_based(1000),
    "range_based-30000": S3ReaderConstructor.range_based(30_000),
}

PROMPT, REFUSED, OUTDATED = "prompt", "refused", "outdated"
HEADS = (PROMPT, REFUSED, OUTDATED)


class FlippedObject(ChecksummedObject):
    """One bit is wrong, in each response that has its byte or only in one of them.

    Args:
        kinds: the checksums that the server keeps.
        flipped: where the bit is; None for an object that comes as it is.
        only: in which of the responses that have the byte; None for each.
        head: the response to the first HEAD: as it should be, by an error, or with another version's checksum.
        late: HEAD gets no response before so many bytes were sent.

    Attributes:
        sent: bytes of the object so far.
    """

    def __init__(
        self,
        data: bytes,
        kinds: Sequence[Algorithm],
        flipped: int | None = None,
        only: int | None = None,
        head: str = PROMPT,
        late: int = 0,
    ) -> None:
        super().__init__(data, None)
        self.checksums = {kind.header: kind.encode(kind.of([data])) for kind in kinds}
        self._flipped = flipped
        self._only = only
        self._head = head
        self._late = late
        self._counter = 0
        self.sent = 0
        self._guard = threading.Condition()

    def __call__(self, request: ReceivedRequest) -> Any:
        if request.method == "HEAD":
            with self._guard:
                assert self._guard.wait_for(lambda: self.sent >= self._late, 30)
                head, self._head = self._head, PROMPT
            if head == REFUSED:
                return response(403)
            if head == OUTDATED and "if-match" not in request.headers:
                other = dict.fromkeys(self.checksums, "AAAAAA==")
                return response(200, headers={"ETag": '"old"', "Content-Length": str(len(self.data)), **other})
        return super().__call__(request)

    def _body(self, start: int, stop: int) -> bytes:
        body = self.data[start:stop]
        with self._guard:
            self.sent += len(body)
            self._guard.notify_all()
            if self._flipped is None or not start <= self._flipped < stop:
                return body
            self._counter += 1
            if self._only not in (None, self._counter):
                return body
            self.spoilt.append(start)
        place = self._flipped - start
        return body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]


class Recorder:
    """A program that reads with ``reader``, and what it was given."""

    def __init__(self, reader: Any, data: bytes) -> None:
        self.reader = reader
        self.is_wrong = False
        self._data = data
        self._given = bytearray(len(data))  # 1 for each byte that was

    @property
    def is_whole(self) -> bool:
        return 0 not in self._given

    def read(self, count: int) -> int:
        start = self.reader.tell()
        return self._note(start, self.reader.read(count))

    def readinto(self, count: int) -> int:
        start, memory = self.reader.tell(), bytearray(count)
        return self._note(start, bytes(memory[: self.reader.readinto(memory)]))

    def read1(self, count: int) -> int:
        start = self.reader.tell()
        return self._note(start, self.reader.read1(count))

    def read_to_end(self, _: int) -> int:
        return self.read(-1)

    def seek(self, position: int) -> int:
        return int(self.reader.seek(position))

    def read_all(self, step: int) -> None:
        """From the beginning to the end."""
        self.reader.seek(0)
        while self.read(step):
            pass

    def _note(self, start: int, data: bytes) -> int:
        self.is_wrong |= data != self._data[start : start + len(data)]
        self._given[start : start + len(data)] = b"\1" * len(data)
        return len(data)


def outcome(
    obj: FlippedObject, program: Callable[[Recorder], object], policy: str = "default", **config: Any
) -> tuple[S3ChecksumError | None, Recorder]:
    """What became of a program: an error, or what it was given."""
    with ScriptedServer(handler=obj) as server, client_of(server.endpoint, **config) as client:
        recorder = Recorder(open_object(client, "b", reader_constructor=POLICIES[policy]), obj.data)
        try:
            program(recorder)
        except S3ChecksumError as error:
            return error, recorder
        return None, recorder


def read_in_order(recorder: Recorder) -> None:
    recorder.read_all(MIB)
