"""Framing: a response is the same however it is cut; garbage is an S3ProtocolError and nothing else."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3torchconnector._errors import S3ConnectionError, S3ProtocolError
from s3torchconnector._wire._connection import Connection
from s3torchconnector._wire._framing import MAX_HEAD, ChunkedDecoder, parse_head
from s3torchconnector._wire._response import Response

quickly = settings(max_examples=80)
chunk_lists = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
cuts = st.lists(st.integers(1, 12), min_size=1, max_size=8)
tokens = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12)
values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20)
framing_names = {"content-length", "transfer-encoding", "connection"}
fields = st.dictionaries(tokens.filter(lambda name: name not in framing_names), values, max_size=5)
garbage = st.binary(max_size=200) | st.lists(
    st.sampled_from(
        [b"HTTP/1.1 ", b"HTTP/1.0 ", b"200", b" OK", b"\r\n", b"\r", b"\n", b":", b" ", b"Content-Length", b"-1", b"5",
         b"Transfer-Encoding", b"chunked", b"gzip", b"\0", b"\xff", b";", b"F", b"Connection: close"]
    ), max_size=14,
).map(b"".join)  # fmt: skip

_NULL = os.open(os.devnull, os.O_RDONLY)


class PiecewiseSocket:
    """A socket that receives the given pieces, one a call, and then the end of the connection."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = [piece for piece in pieces if piece]

    def settimeout(self, seconds: float | None) -> None:
        """Nothing here blocks."""

    def setsockopt(self, *option: object) -> None:
        """Nothing here blocks."""

    def fileno(self) -> int:
        """A descriptor that is always readable."""
        return _NULL

    def recv_into(self, view: memoryview, size: int, flags: int) -> int:
        count = 0
        while self._pieces and count < len(view):
            piece = self._pieces.pop(0)
            taken = piece[: len(view) - count]
            view[count : count + len(taken)] = taken
            count += len(taken)
            if taken != piece:
                self._pieces.insert(0, piece[len(taken) :])
            if not flags & socket.MSG_WAITALL:
                break
        return count


def connection_of(*pieces: bytes) -> Connection:
    return Connection(cast(socket.socket, PiecewiseSocket(pieces)), 1.0, "the test's server")


def cut(data: bytes, lengths: Sequence[int]) -> list[bytes]:
    """``data`` in pieces of these lengths, over and over."""
    pieces = []
    while data:
        length = lengths[len(pieces) % len(lengths)]
        pieces.append(data[:length])
        data = data[length:]
    return pieces


def chunked(chunks: Sequence[bytes], extension: bytes = b"", trailer: bytes = b"") -> bytes:
    sized = [b"%X%s\r\n%s\r\n" % (len(chunk), extension, chunk) for chunk in chunks]
    return b"".join([*sized, b"0\r\n", trailer, b"\r\n"])


def head_of(fields: dict[str, str]) -> bytes:
    lines = "".join(f"{name.title()}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 206 Partial Content\r\n{lines}\r\n".encode()


@quickly
@given(
    chunk_lists,
    cuts,
    st.binary(max_size=10),
    st.sampled_from([b"", b"; name=value"]),
    st.sampled_from([b"", b"A: b\r\n"]),
)
def test_chunks_decode_alike_whole_byte_by_byte_and_cut(
    chunks: list[bytes], cuts: list[int], trailing: bytes, extension: bytes, trailer: bytes
) -> None:
    data = chunked(chunks, extension, trailer) + trailing
    for pieces in ([data], cut(data, [1]), cut(data, cuts)):
        decoder = ChunkedDecoder()
        assert b"".join([decoder.feed(piece) for piece in pieces]) == b"".join(chunks)
        assert decoder.finished
        assert decoder.trailing == trailing


@quickly
@given(chunk_lists, st.data())
def test_chunks_cut_short_are_not_finished(chunks: list[bytes], data: st.DataObject) -> None:
    whole = chunked(chunks)
    decoder = ChunkedDecoder()
    body = decoder.feed(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert not decoder.finished
    assert b"".join(chunks).startswith(body)


@quickly
@given(fields, cuts, st.binary(max_size=60), st.sampled_from(["sized", "chunked", "closed"]))
def test_response_is_the_same_however_it_is_cut(
    fields: dict[str, str], cuts: list[int], body: bytes, framing: str
) -> None:
    extra = {"sized": {"content-length": str(len(body))}, "chunked": {"transfer-encoding": "chunked"}, "closed": {}}
    sent = chunked(cut(body, cuts)) if framing == "chunked" else body
    data = b"HTTP/1.1 100 Continue\r\n\r\n" + head_of({**fields, **extra[framing]}) + sent
    for pieces in ([data], cut(data, [1]), cut(data, cuts)):
        response = Response(connection_of(*pieces))
        assert response.status == 206
        assert response.headers == {**fields, **extra[framing]}
        assert response.read(1000) == body
        assert response.finish() == (framing != "closed")


@pytest.mark.parametrize("framing", ["sized", "chunked"])
def test_bytes_after_a_response_end_its_connection(framing: str) -> None:
    head = {"sized": {"content-length": "4"}, "chunked": {"transfer-encoding": "chunked"}}[framing]
    body = b"body" if framing == "sized" else chunked([b"body"])
    response = Response(connection_of(head_of(head) + body + b"HTTP/1.1 200 OK\r\n"))
    assert response.read(100) == b"body"
    assert not response.finish()


@quickly
@given(st.binary(max_size=40), st.integers(1, 39), st.sampled_from(["sized", "chunked"]))
def test_body_cut_short_is_a_connection_error(body: bytes, missing: int, framing: str) -> None:
    head = {"sized": {"content-length": str(len(body))}, "chunked": {"transfer-encoding": "chunked"}}[framing]
    sent = body if framing == "sized" else chunked([body] if body else [])
    if missing > len(sent):
        return
    response = Response(connection_of(head_of(head) + sent[:-missing]))
    with pytest.raises(S3ConnectionError, match="in the middle of the response"):
        response.read(1000)


@quickly
@given(garbage)
def test_any_bytes_are_a_head_or_a_protocol_error(data: bytes) -> None:
    try:
        head = parse_head(data)
    except S3ProtocolError:
        return
    assert 0 <= head.status <= 999
    assert head.length is None or head.length >= 0
    assert all(name == name.lower() and "\n" not in name for name in head.headers)


@quickly
@given(garbage, cuts)
def test_any_bytes_are_chunks_or_a_protocol_error_however_cut(data: bytes, cuts: list[int]) -> None:
    def outcome(pieces: Sequence[bytes]) -> tuple[bytes, bool] | None:
        decoder = ChunkedDecoder()
        try:
            return b"".join([decoder.feed(piece) for piece in pieces]), decoder.finished
        except S3ProtocolError:
            return None

    assert outcome([data]) == outcome(cut(data, cuts)) == outcome(cut(data, [1]))


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: -1",
        b"Content-Length: +1",
        b"Content-Length: 1_0",
        b"Content-Length: 0x10",
        b"Content-Length:",
        b"Content-Length: 1,1",
        b"Content-Length: " + b"9" * 20,
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Transfer-Encoding: gzip",
        b"no colon",
        b": no name",
        b"Space : before the colon",
        b" continued: line",
    ],
)
def test_malformed_fields_are_refused(lines: bytes) -> None:
    with pytest.raises(S3ProtocolError):
        parse_head(b"HTTP/1.1 200 OK\r\n" + lines)


def test_the_same_length_twice_is_one_length() -> None:
    assert parse_head(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\ncontent-length: 5").length == 5


@pytest.mark.parametrize(
    ("head", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK", True),
        (b"HTTP/1.1 200 OK\r\nConnection: Close", False),
        (b"HTTP/1.0 200 OK", False),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive", True),
    ],
)
def test_keep_alive(head: bytes, keep_alive: bool) -> None:
    assert parse_head(head).keep_alive is keep_alive


@pytest.mark.parametrize(
    "data",
    [b"-1\r\n", b"g\r\n", b"\r\n", b"0x5\r\n", b"f" * 16 + b"\r\n", b"1" * 5000, b"2\r\nabc\r\n",
     b"0\r\n" + b"a: b\r\n" * 8000],
    ids=["negative", "letter", "empty", "0x", "huge", "endless line", "longer than said", "endless trailer"],
)  # fmt: skip
def test_malformed_chunks_are_refused(data: bytes) -> None:
    with pytest.raises(S3ProtocolError):
        ChunkedDecoder().feed(data)


def test_endless_head_is_refused() -> None:
    with pytest.raises(S3ProtocolError, match="head of more than"):
        Response(connection_of(b"HTTP/1.1 200 OK\r\n", b"x-filler: " + b"a" * (2 * MAX_HEAD)))


def test_document_longer_than_its_limit_is_refused() -> None:
    with pytest.raises(S3ProtocolError, match="longer than the 10 bytes"):
        Response(connection_of(b"HTTP/1.1 200 OK\r\n\r\n", b"a" * 11)).read(10)
