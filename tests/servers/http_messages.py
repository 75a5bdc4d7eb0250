"""HTTP/1.1 messages, as the test servers read and write them: simple and blocking, on buffered files."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote, urlsplit

_PIECE = 1 << 18


@dataclass
class Head:
    """A request or a response without its body."""

    first_line: str
    headers: dict[str, str]  # names in lower case
    raw: bytes  # exactly as received, with the empty line

    @property
    def status(self) -> int:
        return int(self.first_line.split(" ", 2)[1])


@dataclass
class ReceivedRequest:
    """A request that a server received, whole."""

    head: Head
    body: bytes

    @property
    def method(self) -> str:
        return self.head.first_line.split(" ")[0]

    @property
    def target(self) -> str:
        """As sent, such as ``/bucket/a%20key?uploads=``."""
        return self.head.first_line.split(" ")[1]

    @property
    def path(self) -> str:
        """Decoded, such as ``/bucket/a key``."""
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def headers(self) -> dict[str, str]:
        """Names in lower case."""
        return self.head.headers

    @property
    def range(self) -> str | None:
        """Such as ``bytes=0-9``."""
        return self.headers.get("range")


def read_request(stream: io.BufferedReader) -> ReceivedRequest | None:
    """Read one request with its body; None if the client has closed the connection instead."""
    head = read_head(stream)
    if head is None:
        return None
    return ReceivedRequest(head, b"".join(read_body(stream, head)))


def read_head(stream: io.BufferedReader) -> Head | None:
    """Read up to the empty line; None if the connection ends before it."""
    raw = b""
    while not raw.endswith(b"\r\n\r\n"):
        line = stream.readline()
        if not line:
            return None
        raw += line
    return parse_head(raw)


def parse_head(raw: bytes) -> Head:
    """Parse a head; ``raw`` ends with the empty line."""
    first_line, *lines = raw.decode("latin-1").split("\r\n")[:-2]
    pairs = [line.split(":", 1) for line in lines]
    return Head(first_line, {name.lower(): value.strip() for name, value in pairs}, raw)


def read_body(stream: io.BufferedReader, head: Head, *, to_the_end: bool = False) -> Iterator[bytes]:
    """The body in pieces as they arrive, a chunked one with its framing.

    A body without any length is empty, or the rest of the connection if ``to_the_end``.
    """
    length = head.headers.get("content-length")
    if head.headers.get("transfer-encoding", "").lower() == "chunked":
        yield from _chunked_body(stream)
    elif length is not None:
        left = int(length)
        while left:
            piece = stream.read1(min(left, _PIECE))
            if not piece:
                raise ConnectionAbortedError("the body ended early")
            left -= len(piece)
            yield piece
    elif to_the_end:
        yield from iter(lambda: stream.read1(_PIECE), b"")


def _chunked_body(stream: io.BufferedReader) -> Iterator[bytes]:
    while size := int((line := stream.readline()).split(b";")[0] or b"0", 16):
        yield line + stream.read(size + 2)
    yield line
    while (trailer := stream.readline()) not in (b"\r\n", b""):
        yield trailer
    yield trailer


def response(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """A whole response; Content-Length is added unless ``headers`` frames the body in another way."""
    fields = {name.lower(): value for name, value in (headers or {}).items()}
    if "transfer-encoding" not in fields:
        fields.setdefault("content-length", str(len(body)))
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{lines}\r\n".encode("latin-1") + body


def s3_error(status: int, code: str, message: str = "as the test says", **details: str) -> bytes:
    """An S3 error response, as in ``s3_error(503, "SlowDown")``; ``details`` become more elements."""
    more = "".join(f"<{name}>{value}</{name}>" for name, value in details.items())
    document = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{message}</Message>{more}<RequestId>TEST</RequestId></Error>"
    )
    headers = {"Content-Type": "application/xml", "x-amz-request-id": "TEST"}
    return response(status, document.encode(), headers)
