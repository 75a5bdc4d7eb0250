"""The file of a manifest: a checked header, then columns as they are used, so that nothing is parsed. Pure.

::

    b"S3MANI1\\n"                8 bytes
    length, CRC-32 of the header  2 * u32
    header                        JSON, see ``Header``; then zeros up to a multiple of 64
    key_ends                      u64 an object: where its key ends among the keys
    sizes                         u64 an object, in bytes
    bucket_of                     u32 an object, if there is more than one bucket
    etag_ends | etag_parts        u64 an object if the ETags are text; u16 if some name parts
    etags                         16 bytes an object, or text
    keys                          UTF-8, without anything between them

If samples are not whole objects, these are the columns of their objects, and those of ``_sample_columns`` follow; the
format is then 2. All numbers are little-endian, and every column begins at a multiple of 64. The fingerprint is the
SHA-256 of the names of the buckets and of everything after the header: of the rows, not of when or by whom they were
listed.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

from s3torchconnector._datasets._sample_columns import SampleColumns
from s3torchconnector._errors import S3FormatError
from s3torchconnector._etag_columns import KINDS, PARTS, TEXT

FORMAT = 1
FORMAT_OF_SAMPLES = 2
MAGIC = b"S3MANI1\n"
_LENGTHS = struct.Struct("<II")
PREFIX_SIZE = len(MAGIC) + _LENGTHS.size
LARGEST_HEADER = 64 * 2**20
_ALIGNMENT = 64
_BLOCK = 4 * 2**20  # bytes that are hashed by one thread at a time
_MOST = 2**48


@dataclass(frozen=True)
class Header:
    """The header of a manifest.

    Attributes:
        buckets: their names.
        origin: the URIs that were listed, or none.
        created: when, in seconds since 1970.
        archived: how many objects were left out since they are archived.
        samples: how many objects there are, each of which is a sample if ``columns_of_samples`` is None.
        key_bytes, etag_bytes: how long the columns of text are.
        etags: one of ``_etag_columns.KINDS``.
        fingerprint: see the module; hexadecimal.
        columns_of_samples: what samples are, if not whole objects.
    """

    buckets: tuple[str, ...]
    origin: tuple[str, ...]
    created: int
    archived: int
    samples: int
    key_bytes: int
    etag_bytes: int
    etags: str
    fingerprint: str = ""
    columns_of_samples: SampleColumns | None = None

    @property
    def format(self) -> int:
        """The number of the format: the lowest one that has the needed columns, so that older releases load as many
        manifests as possible.
        """
        return FORMAT if self.columns_of_samples is None else FORMAT_OF_SAMPLES

    def encoded(self) -> bytes:
        """The beginning of the file, up to the first column."""
        document = {"format": self.format, **asdict(self)}
        if self.columns_of_samples is None:
            del document["columns_of_samples"]
        data = json.dumps(document, ensure_ascii=True).encode()
        return _padded(MAGIC + _LENGTHS.pack(len(data), zlib.crc32(data)) + data)

    def columns(self) -> dict[str, range]:
        """The position of each column after the header, in the order of the file."""
        n = self.samples
        sizes = {
            "key_ends": 8 * n,
            "sizes": 8 * n,
            "bucket_of": 4 * n if len(self.buckets) > 1 else 0,
            "etag_ends": 8 * n if self.etags == TEXT else 0,
            "etag_parts": 2 * n if self.etags == PARTS else 0,
            "etags": self.etag_bytes,
            "keys": self.key_bytes,
            **({} if self.columns_of_samples is None else self.columns_of_samples.sizes()),
        }
        starts = accumulate(map(_aligned, sizes.values()), initial=0)
        return {name: range(start, start + size) for (name, size), start in zip(sizes.items(), starts, strict=False)}

    @property
    def data_size(self) -> int:
        """Bytes after the header."""
        return _aligned(max(place.stop for place in self.columns().values()))


def read_header(data: bytes | memoryview) -> tuple[Header, int]:
    """The header at the beginning of a file, and where its columns begin.

    Raises:
        S3FormatError: it is not a header, or damaged.
    """
    if bytes(data[: len(MAGIC)]) != MAGIC:
        raise S3FormatError(f"it is not a manifest of this package: it begins with {bytes(data[:16])!r}")
    if len(data) < PREFIX_SIZE:
        raise S3FormatError("it is truncated: it has only a few bytes")
    length, checksum = _LENGTHS.unpack(data[len(MAGIC) : PREFIX_SIZE])
    text = bytes(data[PREFIX_SIZE : PREFIX_SIZE + length])
    if len(text) < length or zlib.crc32(text) != checksum:
        raise S3FormatError("its header is damaged or truncated")
    try:
        document = json.loads(text)
        number = document.pop("format")
        if number not in (FORMAT, FORMAT_OF_SAMPLES):
            raise S3FormatError("it was written by a later release of this package: load it with that")
        header = _header_of(document)
        if header.format != number:
            raise ValueError(f"the format is not {number}")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        if isinstance(error, S3FormatError):
            raise
        raise S3FormatError(f"its header is invalid ({type(error).__name__}: {error})") from error
    return header, _aligned(PREFIX_SIZE + length)


def check_content(header: Header, data: memoryview, start: int) -> None:
    """Compare the bytes after the header, from ``start`` on, with the header.

    Raises:
        S3FormatError: they do not match.
    """
    if len(data) - start != header.data_size:
        raise S3FormatError(f"it has {len(data)} bytes, but its header says {start + header.data_size}")
    if fingerprint(header, data[start:]) != header.fingerprint:
        raise S3FormatError("its content does not have the checksum in its header: some bytes have changed")
    if any(data[PREFIX_SIZE + _LENGTHS.unpack(data[len(MAGIC) : PREFIX_SIZE])[0] : start]):
        raise S3FormatError("there are bytes between its header and its content")


def fingerprint(header: Header, data: bytes | memoryview) -> str:
    """The fingerprint of rows; hashed by several threads."""
    described: list[Any] = [FORMAT, header.buckets, header.samples, header.etags, header.etag_bytes, header.key_bytes]
    if header.columns_of_samples is not None:
        described += [asdict(header.columns_of_samples)]
    names = json.dumps(described)
    view = memoryview(data)
    blocks = [view[at : at + _BLOCK] for at in range(0, len(view), _BLOCK)]
    total = hashlib.sha256(names.encode())
    for digest in _digests(blocks):
        total.update(digest)
    return total.hexdigest()


def _digests(blocks: list[memoryview]) -> Iterable[bytes]:
    if len(blocks) < 2:
        return map(_sha256, blocks)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        return threads.map(_sha256, blocks)


def _sha256(block: memoryview) -> bytes:
    return hashlib.sha256(block).digest()


def _header_of(document: dict[str, Any]) -> Header:
    for name in ("buckets", "origin"):
        document[name] = tuple(document[name])
        if not all(isinstance(text, str) for text in document[name]):
            raise TypeError(f"{name} are {document[name]!r:.100}")
    if "columns_of_samples" in document:
        document["columns_of_samples"] = SampleColumns.of_document(document["columns_of_samples"])
    header = Header(**document)
    for name in ("created", "archived", "samples", "key_bytes", "etag_bytes"):
        value = getattr(header, name)
        if type(value) is not int or not 0 <= value < _MOST:
            raise TypeError(f"{name} is {value!r:.100}")
    if header.etags not in KINDS or not isinstance(header.fingerprint, str):
        raise ValueError(f"the ETags are {header.etags!r:.100}")
    if header.etags != TEXT and header.etag_bytes != 16 * header.samples:
        raise ValueError(f"{header.etag_bytes} bytes are no {header.samples} ETags")
    return header


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _padded(data: bytes) -> bytes:
    return data + bytes(_aligned(len(data)) - len(data))
