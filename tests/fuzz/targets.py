"""What is fuzzed: each parser of bytes that come from outside, the errors it may raise, and what its inputs look like.

A target takes any bytes. It returns, or raises one of its errors; everything else is a finding, and so is a result
that contradicts another reading of the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest.mock import patch

from hypothesis import strategies as st

from s3torchconnector._errors import S3Exception, S3FormatError, S3ProtocolError
from s3torchconnector._safetensors import _header
from s3torchconnector._transfer.engine._ranges import parse_content_range
from s3torchconnector._wire import _list_page, parse_http_date
from s3torchconnector._wire._documents import parse_error
from s3torchconnector._wire._framing import ChunkedDecoder, parse_head
from s3torchconnector._wire._sessions import parse_session
from s3torchconnector._wire._upload_documents import parse_upload_id, parse_uploads_page

_NAMESPACE = b' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


class Target(NamedTuple):
    """One parser: call ``run`` with any bytes; ``words`` are what its inputs are made of."""

    run: Callable[[bytes], Any]
    error: type[S3Exception]
    words: list[bytes]
    template: tuple[bytes, bytes] = (b"", b"")  # around the words in half of the inputs

    def inputs(self) -> st.SearchStrategy[bytes]:
        sentence = st.lists(st.sampled_from(self.words) | st.binary(max_size=3), max_size=30).map(b"".join)
        return st.binary(max_size=100) | sentence | sentence.map(lambda text: text.join(self.template))


def outcome(run: Callable[[], Any], error: type[S3Exception]) -> Any:
    """What a parser made of its bytes; all refusals are alike."""
    try:
        return run()
    except error:
        return error


def _head(data: bytes) -> None:
    head = parse_head(data)
    assert 100 <= head.status <= 999 or head.status < 100
    assert head.length is None or 0 <= head.length < 10**19
    assert all(name == name.lower() and "\n" not in name + value for name, value in head.headers.items())
    if "last-modified" in head.headers:
        assert isinstance(parse_http_date(head.headers["last-modified"]), int)


def _chunks(data: bytes) -> None:
    def decoded(step: int) -> tuple[bytes, bool, bytes]:
        decoder = ChunkedDecoder()
        body = b"".join(decoder.feed(data[start : start + step]) for start in range(0, len(data), step))
        return body, decoder.finished, decoder.trailing

    whole = outcome(lambda: decoded(max(1, len(data))), S3ProtocolError)
    assert whole == outcome(lambda: decoded(1), S3ProtocolError) == outcome(lambda: decoded(7), S3ProtocolError)


def _documents(data: bytes) -> None:
    parse_error(data)
    for parser in (parse_upload_id, parse_session, parse_uploads_page):
        outcome(lambda parser=parser: parser(data), S3ProtocolError)


def _listing(data: bytes) -> None:
    """The regular expression reads a page as the parser does."""

    def read() -> tuple[object, ...]:
        page = _list_page.parse_list_page(data)
        return list(page.objects), page.common_prefixes, page.next_token

    fast = outcome(read, S3ProtocolError)
    with patch.object(_list_page, "_split", lambda page: (page, None)):
        slow = outcome(read, S3ProtocolError)
    assert fast == slow


def _content_range(data: bytes) -> None:
    found = parse_content_range(data.decode("latin-1"))
    assert 0 <= found.start <= found.stop <= found.size


def _safetensors(data: bytes) -> None:
    """The tensors of a valid header are adjacent and fill the file."""
    size = len(data) + 64
    if len(data) >= 8:
        outcome(lambda: _header.header_bytes(data[:8], size), S3FormatError)
    for data_size in (0, 1, 4, 8, 64):
        entries = outcome(lambda data_size=data_size: _header.parse(data, data_size), S3FormatError)
        if entries is not S3FormatError:
            stops = [0, *(entry.stop for entry in entries)]
            assert stops == sorted(stops)
            assert stops[-1] == data_size
            bits = [math.prod(entry.shape) * _header.BITS[entry.dtype] for entry in entries]
            assert [8 * (entry.stop - entry.start) for entry in entries] == bits


_ENTRY = (
    b"<Contents><Key>k%41+</Key><LastModified>2026-01-31T10:20:30.000Z</LastModified><ETag>&quot;e&quot;</ETag>"
    b"<Size>5</Size><StorageClass>STANDARD</StorageClass></Contents>"
)

TARGETS = {
    "heads": Target(
        _head,
        S3ProtocolError,
        [b"HTTP/1.1 200 OK", b"HTTP/1.0 ", b"204", b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"Content-Length: 5",
         b"-1", b"Transfer-Encoding: chunked", b"Connection: close", b"Last-Modified: ", b"Sun, 22 Nov 2026 12:00:00 ",
         b"GMT", b"+99999999999999999999", b"99999999999999999999", b"\xff", b"\0"],
        (b"HTTP/1.1 206 Partial Content\r\n", b"\r\nEtag: x"),
    ),
    "chunks": Target(
        _chunks,
        S3ProtocolError,
        [b"0", b"5", b"F", b"-1", b"\r\n", b"\r", b"\n", b"hello", b";x=y", b"A: b", b" ", b"_"],
    ),
    "documents": Target(
        _documents,
        S3ProtocolError,
        [b"<Error>", b"</Error>", b"<Code>", b"</Code>", b"<Message>", b"</Message>", b"<UploadId>i</UploadId>", b"<a>",
         b"</a>", b"<Upload>", b"</Upload>", b"<Key>k</Key>", b"<Initiated>2026-01-31T10:20:30.000Z</Initiated>",
         b"<Initiated>+026-", b"</Initiated>", b"<IsTruncated>true</IsTruncated>", b"<NextKeyMarker>m</NextKeyMarker>",
         b"<Expiration>", b"</Expiration>", b"&amp;", b"&#10;", b"&x;", b"<!DOCTYPE", b"<!--", b"-->", b"<![CDATA[",
         b"]]>", b"<AccessKeyId>a</AccessKeyId>", b"<SecretAccessKey>s</SecretAccessKey>"],
        (b"<ListMultipartUploadsResult" + _NAMESPACE + b">", b"</ListMultipartUploadsResult>"),
    ),
    "listings": Target(
        _listing,
        S3ProtocolError,
        [_ENTRY, _ENTRY, _ENTRY.replace(b"&quot;", b"&#34;"), _ENTRY.replace(b"&quot;", b"&amp;"), b"<Contents>",
         b"</Contents>", b"<Contents/>", b"<Contents >", b"<Key>", b"</Key>", b"<Size>7</Size>", b"\n  ", b"\r", b"\t",
         b"\x0c", b"text", b"<!--", b"-->", b"<![CDATA[", b"]]>", b"<?x ?>", b"<Other>", b"</Other>",
         _ENTRY.replace(b"k%41+", "ü\xa0\ufffe".encode()), _ENTRY.replace(b"k%41+", b"\x01"),
         _ENTRY.replace(b"k%41+", b"a]]>"), _ENTRY.replace(b"k%41+", "ü".encode()), _ENTRY.replace(b"5", b"007"),
         _ENTRY.replace(b"<StorageClass>STANDARD</StorageClass>", b""),
         b"<EncodingType>url</EncodingType>", b"<IsTruncated>true</IsTruncated>",
         b"<NextContinuationToken>t</NextContinuationToken>", b"<CommonPrefixes><Prefix>p</Prefix></CommonPrefixes>",
         b'<?xml version="1.0" encoding="iso-8859-1"?>', b'<?xml version="1.0" encoding="UTF-8"?>',
         b"<ListBucketResult>", b"<x:ListBucketResult xmlns:x='u'>", b"</ListBucketResult>", b"</x:ListBucketResult>"],
        (b"<ListBucketResult" + _NAMESPACE + b">", b"</ListBucketResult>"),
    ),
    "content-ranges": Target(
        _content_range,
        S3ProtocolError,
        [b"bytes ", b"*", b"0", b"5", b"9" * 19, b"-", b"/", b"\xb2", b" ", b"\n"],
        (b"bytes 0-", b"/10"),
    ),
    "safetensors": Target(
        _safetensors,
        S3FormatError,
        [b'{"a":', b'"b":', b"{", b"}", b"[", b"]", b",", b":", b'"dtype":"F32"', b'"dtype":"F4"', b'"shape":[1]',
         b'"shape":[0,', b'"shape":[]', b'"data_offsets":[0,4]', b'"data_offsets":[4,8]', b"-1", b"1e5", b"9" * 30,
         b"true", b"null", b"NaN", b'"__metadata__":{}', b'"\\ud800"', b" ",
         b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}',
         b'"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}'],
        (b"{", b"}"),
    ),
}  # fmt: skip
