"""HTTP/1.1 messages on asyncio streams; ``http_messages`` for blocking files."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from typing import NamedTuple

from tests.servers.http_messages import Head, ReceivedRequest, parse_head

_LIMIT = 4 << 20  # bytes that a stream takes before it makes its peer wait


class Streams(NamedTuple):
    """Both directions of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@contextlib.asynccontextmanager
async def accepted(sock: socket.socket, tls: ssl.SSLContext | None) -> AsyncIterator[Streams]:
    """A connection that a listening socket accepted, after its TLS handshake if there is one."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(_LIMIT)
    protocol = asyncio.StreamReaderProtocol(reader)
    with contextlib.ExitStack() as undo:
        undo.callback(sock.close)
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock, ssl=tls)
        undo.pop_all()
    try:
        yield Streams(reader, asyncio.StreamWriter(transport, protocol, reader, loop))
    finally:
        transport.close()


@contextlib.asynccontextmanager
async def connected(host: str, port: int) -> AsyncIterator[Streams]:
    """A connection of ours."""
    reader, writer = await asyncio.open_connection(host, port, limit=_LIMIT)
    try:
        yield Streams(reader, writer)
    finally:
        writer.close()


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """Read up to the empty line; None if the connection ends before it."""
    try:
        return parse_head(await reader.readuntil(b"\r\n\r\n"))
    except asyncio.IncompleteReadError:
        return None


async def read_response(reader: asyncio.StreamReader, request: ReceivedRequest) -> tuple[Head, bytes] | None:
    """The response to ``request`` with its whole body, without interim ones (100); None if there is none."""
    head = await read_head(reader)
    while head is not None and head.status < 200:
        head = await read_head(reader)
    if head is None:
        return None
    if request.method == "HEAD" or head.status in (204, 304):
        return head, b""
    return head, await read_body(reader, head)


async def read_body(reader: asyncio.StreamReader, head: Head) -> bytes:
    """The whole body, a chunked one with its framing; one without any length is empty."""
    if head.headers.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(int(head.headers.get("content-length", 0)))
    pieces = []
    size = 1
    while size:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        pieces += [line, await reader.readexactly(size + 2) if size else b""]
    while pieces[-1] != b"\r\n":  # trailers, up to the empty line
        pieces.append(await reader.readuntil(b"\r\n"))
    return b"".join(pieces)
