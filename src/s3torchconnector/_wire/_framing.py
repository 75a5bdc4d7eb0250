"""HTTP/1.1 response framing without I/O: where a head ends, what it says, and where its body ends.

It implements what S3 needs of RFC 9112: a status line, header fields, and a body delimited by ``Content-Length``, by
chunks, or by the end of the connection. The parsers take bytes and return values, so that they can be tested with whole
data, byte by byte, and with trailing data. Bodies of known length, the hot path, never pass through here: the
connection receives them straight into the caller's memory.
"""

import re
from typing import NamedTuple

from s3torchconnector._errors import S3ProtocolError

MAX_HEAD = 64 * 1024  # bytes; S3's own limits (8 KiB of metadata and headers) are far below
# A field line (RFC 9112, section 5): no blanks before the colon, any number around the value. The pattern can match in
# one way only: with a lazy value before optional blanks, 10,000 blanks would take a second.
_FIELD = re.compile(r"^([!-9;-~]+):([^\r\n]*)\r?$", re.MULTILINE)
_MAX_LINE = 4 * 1024
_MAX_TRAILER = 16 * 1024


class ResponseHead(NamedTuple):
    """A parsed head. ``headers`` has lower-case names and the last value of a repeated field (S3 repeats none).

    ``length`` is the length of the body in bytes, or None if it is chunked or ends with the connection.
    """

    status: int
    reason: str
    headers: dict[str, str]
    length: int | None
    chunked: bool
    keep_alive: bool


def parse_head(data: bytes) -> ResponseHead:
    """Parse a response head: everything before the blank line, without it.

    Raises:
        S3ProtocolError: this is not an HTTP/1.x response.
    """
    status_line, _, rest = data.partition(b"\r\n")
    version, _, status_and_reason = status_line.partition(b" ")
    status_text, _, reason = status_and_reason.partition(b" ")
    if version not in (b"HTTP/1.1", b"HTTP/1.0") or len(status_text) != 3 or not status_text.isdigit():
        raise S3ProtocolError(
            f"the response does not begin like HTTP/1.1 but with {bytes(status_line[:60])!r}. Is the endpoint an "
            "S3 server?"
        )
    headers = _parse_fields(rest)
    status = int(status_text)
    chunked = headers.get("transfer-encoding", "").lower() == "chunked"
    connection = headers.get("connection", "").lower()
    keep_alive = connection != "close" if version == b"HTTP/1.1" else connection == "keep-alive"
    if status == 204 and (chunked or headers.get("content-length", "0") != "0"):
        keep_alive = False  # a body that should not be there would be taken for the next response
    return ResponseHead(
        status, reason.decode("latin-1"), headers, _body_length(status, headers, chunked), chunked, keep_alive
    )


def _parse_fields(data: bytes) -> dict[str, str]:
    if not data:
        return {}
    text = data.decode("latin-1")
    fields = _FIELD.findall(text)
    if len(fields) != text.count("\n") + 1:
        line = next(line for line in text.split("\n") if not _FIELD.fullmatch(line))
        raise S3ProtocolError(f"the response has a malformed header line: {line[:60]!r}")
    headers = {name.lower(): value.strip(" \t") for name, value in fields}
    # Two different lengths are how responses get smuggled (RFC 9112, section 6.3).
    if len(headers) != len(fields) and _has_two_lengths(fields):
        raise S3ProtocolError("the response has two different Content-Length headers")
    return headers


def _has_two_lengths(fields: list[tuple[str, str]]) -> bool:
    return len({value.strip(" \t") for name, value in fields if name.lower() == "content-length"}) > 1


def _body_length(status: int, headers: dict[str, str], chunked: bool) -> int | None:
    if status in (204, 304) or status < 200:
        return 0
    if chunked:
        return None
    if "transfer-encoding" in headers:
        raise S3ProtocolError(f"the response has an unknown Transfer-Encoding: {headers['transfer-encoding'][:60]!r}")
    text = headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise S3ProtocolError(f"the response has a malformed Content-Length: {text[:60]!r}")
    return int(text)


class ChunkedDecoder:
    """The chunked transfer coding (RFC 9112, section 7.1), fed with bytes as they arrive.

    ``feed`` returns the bytes of body in what it was given. Once ``finished``, ``trailing`` holds the bytes after the
    body: none, on a connection that can be used again.
    """

    def __init__(self) -> None:
        self.finished = False
        self._buffer = bytearray()
        self._left = 0  # bytes of data that the current chunk still lacks
        self._expect_crlf = False  # the line end after a chunk's data comes next
        self._trailer_size: int | None = None  # bytes of trailer lines so far, after the last chunk

    @property
    def trailing(self) -> bytes:
        return bytes(self._buffer) if self.finished else b""

    def feed(self, data: bytes) -> bytes:
        """Take ``data`` and return the bytes of body in it.

        Raises:
            S3ProtocolError: the framing is broken.
        """
        self._buffer += data
        body = bytearray()
        while not self.finished and self._step(body):
            pass
        return bytes(body)

    def _step(self, body: bytearray) -> bool:
        """Consume one element of the coding; False if that needs more bytes."""
        buffer = self._buffer
        if self._left:
            piece = buffer[: self._left]
            del buffer[: len(piece)]
            body += piece
            self._left -= len(piece)
            return bool(piece)
        if self._expect_crlf:
            if len(buffer) < 2:
                return False
            if buffer[:2] != b"\r\n":
                raise S3ProtocolError("a chunk of the response is longer than its size line says")
            del buffer[:2]
            self._expect_crlf = False
            return True
        end = buffer.find(b"\r\n", 0, _MAX_LINE)
        if end < 0:
            if len(buffer) >= _MAX_LINE:
                raise S3ProtocolError("a chunk of the response has an endless size line")
            return False
        line = bytes(buffer[:end])
        del buffer[: end + 2]
        self._parse_line(line)
        return True

    def _parse_line(self, line: bytes) -> None:
        if self._trailer_size is not None:
            self._trailer_size += len(line)
            if self._trailer_size > _MAX_TRAILER:
                raise S3ProtocolError("the response has an endless trailer")
            self.finished = not line
            return
        size_text = line.partition(b";")[0].strip(b" \t")
        if not size_text or len(size_text) > 15 or size_text.strip(b"0123456789abcdefABCDEF"):
            raise S3ProtocolError(f"a chunk of the response has a malformed size line: {line[:40]!r}")
        self._left = int(size_text, 16)
        if self._left:
            self._expect_crlf = True
        else:
            self._trailer_size = 0
