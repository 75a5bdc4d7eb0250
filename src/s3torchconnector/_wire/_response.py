"""A response: its head, and its body, which is received into memory of the caller."""

from __future__ import annotations

from collections.abc import Mapping

from s3torchconnector._errors import S3ConnectionError, S3Exception, S3ProtocolError
from s3torchconnector._wire._connection import Connection
from s3torchconnector._wire._documents import DOCUMENT_LIMIT
from s3torchconnector._wire._framing import ChunkedDecoder, ResponseHead

_CHUNK = 64 * 1024
_DRAIN_LIMIT = 256 * 1024  # bytes of unread body that are worth receiving to keep a connection


class Decompressed(S3ProtocolError):
    """The server sent other bytes than it stores: an object with ``Content-Encoding: gzip``, decompressed.

    Google Cloud Storage does that unless the request accepts gzip, and then ignores ranges.
    https://cloud.google.com/storage/docs/transcoding
    """


class Response:
    """One response on a connection. Its body is read in order, once, by one thread."""

    received = 0  # bytes of body read so far
    waited = 0.0  # seconds, from when the request was begun to be sent
    _decoded = memoryview(b"")

    def __init__(self, connection: Connection, *, bodyless: bool = False) -> None:
        self._connection = connection
        self.head: ResponseHead = connection.receive_head()
        self.status, _, self.headers, length, chunked, _ = self.head
        self._left = 0 if bodyless else length
        self._ends_with_connection = self._left is None and not chunked
        self._decoder = ChunkedDecoder() if chunked and not bodyless else None
        if self._left != 0:
            connection.acknowledge_head()

    @property
    def length(self) -> int | None:
        """The announced length of the body; None if it is chunked or ends with the connection."""
        return self.head.length

    def readinto(self, view: memoryview) -> int:
        """Receive up to ``len(view)`` bytes of body; 0 at its end.

        Raises:
            S3ConnectionError: the connection broke before the body was complete.
        """
        if self._decoder is not None:
            count = self._read_chunked(view, self._decoder)
        elif self._left is None:
            count = self._connection.readinto(view, fill=False)
            if not count:
                self._left = 0
        else:
            count = self._read_sized(view)
        self.received += count
        return count

    @property
    def is_sized(self) -> bool:
        """Whether its length is known, so that receiving it can be interrupted anywhere."""
        return self._left is not None

    @property
    def is_received(self) -> bool:
        """Whether the whole body came together with the head, as that of most refusals does."""
        return not self._ends_with_connection and self._connection.has_received(self._left)

    def pop_whole(self) -> bytes | None:
        """The body, if all of it came together with the head; None if ``readinto`` has to receive it."""
        if self.received or not self._left:
            return None
        data = self._connection.pop_leftover(self._left)
        if data is not None:
            self.received, self._left = self._left, 0
        return data

    def _read_sized(self, view: memoryview) -> int:
        assert self._left is not None
        if not self._left:
            return 0
        count = self._connection.readinto(view[: self._left], fill=True)
        if not count:
            raise S3ConnectionError(
                f"the connection closed in the middle of the response, after {self.received} of "
                f"{self.received + self._left} bytes"
            )
        self._left -= count
        return count

    def _read_chunked(self, view: memoryview, decoder: ChunkedDecoder) -> int:
        buffer = bytearray(_CHUNK)
        while not self._decoded and not decoder.finished:
            count = self._connection.readinto(memoryview(buffer), fill=False)
            if not count:
                raise S3ConnectionError(
                    f"the connection closed in the middle of the response, after {self.received} bytes"
                )
            self._decoded = memoryview(decoder.feed(bytes(buffer[:count])))
        count = min(len(view), len(self._decoded))
        view[:count] = self._decoded[:count]
        self._decoded = self._decoded[count:]
        return count

    def read(self, limit: int) -> bytes:
        """The whole body, for documents.

        Raises:
            S3ProtocolError: it is longer than ``limit`` bytes.
        """
        body = bytearray()
        buffer = memoryview(bytearray(min(limit + 1, self._left or _CHUNK) or 1))
        while count := self.readinto(buffer):
            body += buffer[:count]
            if len(body) > limit:
                raise S3ProtocolError(f"the response is longer than the {limit} bytes that it may have")
        return bytes(body)

    def finish(self) -> bool:
        """Receive the little that may be left; return whether the connection can serve another request."""
        if self._ends_with_connection:
            return False
        if self._left is not None and self._left > _DRAIN_LIMIT:
            return False
        if self._left or self._decoder is not None:
            return self._drain()
        return self.head.keep_alive and not self._connection.has_leftover

    def _drain(self) -> bool:
        scratch = memoryview(bytearray(_CHUNK))
        before = self.received
        try:
            while self.readinto(scratch):
                if self.received - before > _DRAIN_LIMIT:
                    return False
        except S3Exception:
            return False  # all that was wanted of this response has been received
        trailing = self._decoder.trailing if self._decoder else b""
        return self.head.keep_alive and not trailing and not self._connection.has_leftover


def check_not_decompressed(headers: Mapping[str, str]) -> None:
    """Check that a response without a range has an object's bytes as they are stored.

    Raises:
        Decompressed: it does not.
    """
    if headers.get("x-goog-stored-content-encoding", "identity") not in ("identity", headers.get("content-encoding")):
        raise Decompressed(
            "the server decompressed the object, which is stored with Content-Encoding: gzip, so that neither its size "
            "nor its ranges are known. Store it without Content-Encoding, or with Cache-Control: no-transform"
        )


def read_document(response: Response) -> bytes:
    """Receive a whole XML document: what most operations do with their response."""
    return response.read(DOCUMENT_LIMIT)
