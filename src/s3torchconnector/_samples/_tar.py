"""Finds the positions of files in tar archives. A parser that is fed with bytes. Pure.

It reads ustar, GNU's long names and base-256 sizes, and PAX headers with paths and sizes
(https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html,
https://www.gnu.org/software/tar/manual/html_node/Standard.html). Directories, links and devices are skipped, as in
``tarfile``. Bytes after the first block of zeros are not part of the archive.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from s3torchconnector._errors import S3FormatError
from s3torchconnector._samples._sums import Sums

BLOCK = 512
_LONGEST_EXTENSION = 2**20  # bytes; of a name or PAX headers
_FILES = b"0\x007"
_WITHOUT_DATA = b"123456"  # links, devices, directories, pipes: their size means nothing
_GNU_NAME, _GNU_LINK, _GNU_SPARSE, _PAX, _SOLARIS_PAX, _PAX_GLOBAL = b"L", b"K", b"S", b"x", b"X", b"g"
_EXTENSIONS = (_GNU_NAME, _GNU_LINK, _PAX, _SOLARIS_PAX, _PAX_GLOBAL)
_GNU_MAGIC = b"ustar  \0"
_ZEROS = bytes(BLOCK)
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class Entry(NamedTuple):
    """A file of an archive.

    Attributes:
        path: its name.
        start, stop: its bytes in the archive.
        sums: the checksums of its bytes.
    """

    path: str
    start: int
    stop: int
    sums: Sums

    @property
    def is_empty(self) -> bool:
        return self.start == self.stop


class _Header(NamedTuple):
    kind: bytes
    path: str
    size: int


class TarParser:
    """Finds the files of an archive while its bytes arrive. It keeps none of the bytes.

    Args:
        position: where in the archive the first byte comes from, in bytes.

    Attributes:
        ended: whether the archive's end was seen. What comes after that is not looked at.
    """

    def __init__(self, position: int = 0) -> None:
        self.ended = False
        self._position = position
        self._first = position
        self._held = bytearray()  # of a header, or of what extends the next one
        self._wanted = BLOCK
        self._extends: bytes | None = None  # the kind of header whose content is held
        self._unread = 0  # bytes of the file that are still to come
        self._passed = 0  # bytes to pass over before the next header
        self._file: Entry | None = None
        self._next: dict[str, str] = {}  # what extends the next header
        self._global: dict[str, str] = {}

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Entry]:
        """The files that these next bytes complete.

        Raises:
            S3FormatError: it is no archive, or one that cannot be read.
        """
        view = memoryview(data)
        while len(view) and not self.ended:
            before = self._position
            if self._unread:
                count = min(self._unread, len(view))
                yield from self._take(view[:count])
            elif self._passed:
                count = min(self._passed, len(view))
                self._passed -= count
            else:
                count = min(self._wanted - len(self._held), len(view))
                self._held += view[:count]
            self._position = before + count
            view = view[count:]
            if len(self._held) == self._wanted:
                block, self._held, self._wanted = bytes(self._held), bytearray(), BLOCK
                yield from self._block(block)

    def finish(self) -> None:
        """There are no more bytes.

        Raises:
            S3FormatError: the archive ends in the middle of something.
        """
        if not self.ended and (self._held or self._unread or self._passed or self._next or self._extends):
            where = f"in the file {self._file.path!r}" if self._unread and self._file else "in the middle of a header"
            raise S3FormatError(f"it is truncated: it ends at byte {self._position}, {where}")
        if self._position == self._first:
            raise S3FormatError("it is empty: even an archive without files has some bytes")

    def _take(self, data: memoryview) -> Iterator[Entry]:
        file = self._file
        assert file is not None
        self._unread -= len(data)
        self._file = file = file._replace(sums=file.sums.and_of(data))
        if not self._unread:
            yield file

    def _block(self, block: bytes) -> Iterator[Entry]:
        """A header is here, or what extends the next one."""
        extends, self._extends = self._extends, None
        if extends is not None:
            self._passed = -len(block) % BLOCK
            self._extend(extends, block)
            return
        if block == _ZEROS:
            self.ended = True
            return
        at = self._position - BLOCK
        header = _parsed(block, at)
        if header.kind in _EXTENSIONS:
            if header.size > _LONGEST_EXTENSION:
                raise S3FormatError(f"the header at byte {at} is extended by {header.size} bytes")
            if header.size:
                self._extends, self._wanted = header.kind, header.size
            return
        yield from self._begin(header, at)

    def _begin(self, header: _Header, at: int) -> Iterator[Entry]:
        """The header of a file, or of something that is none."""
        extended = {**self._global, **self._next}
        self._next = {}
        if header.kind == _GNU_SPARSE or any(name.startswith("GNU.sparse.") for name in extended):
            raise S3FormatError(
                f"the file at byte {at} is sparse: its bytes are not stored in the archive as they are. Make the "
                "archive without --sparse"
            )
        size = _decimal(extended["size"], at) if "size" in extended else header.size
        if header.kind in _WITHOUT_DATA or (header.kind == b"\0" and header.path.endswith("/")):
            return
        if header.kind not in _FILES:  # of no known kind, whose content is passed over
            self._passed = size + -size % BLOCK
            return
        self._passed, self._unread = -size % BLOCK, size
        self._file = Entry(extended.get("path", header.path), self._position, self._position + size, Sums())
        if not size:
            yield self._file

    def _extend(self, kind: bytes, data: bytes) -> None:
        if kind == _GNU_NAME:
            self._next.setdefault("path", _text(data))
        elif kind == _PAX_GLOBAL:
            self._global.update(_pax(data, self._position))
        elif kind != _GNU_LINK:
            for name, value in _pax(data, self._position).items():
                self._next.setdefault(name, value.rstrip("/") if name == "path" else value)


def _parsed(block: bytes, at: int) -> _Header:
    """The header in a block.

    Raises:
        S3FormatError: it is none.
    """
    told = _number(block[148:156])
    unsigned = sum(block) - sum(block[148:156]) + 8 * 32
    if told != unsigned and told != sum(struct.unpack("512b", block)) - sum(struct.unpack("8b", block[148:156])) + 256:
        raise S3FormatError(_no_header(block, at))
    size = _number(block[124:136])
    if size is None or size < 0:
        raise S3FormatError(f"the header at byte {at} has no valid size: {block[124:136]!r}")
    path, prefix = _text(block[:100]), "" if block[257:265] == _GNU_MAGIC else _text(block[345:500])
    return _Header(block[156:157], f"{prefix}/{path}" if prefix else path, size)


def _no_header(block: bytes, at: int) -> str:
    if at == 0:
        for magic, name in _COMPRESSED.items():
            if block.startswith(magic):
                return (
                    f"it is compressed ({name}), so that nothing in it can be read alone. Store it uncompressed: "
                    "images, audio and video hardly get smaller anyway"
                )
        return f"it is no tar archive: it begins with {block[:16]!r}"
    return f"there is no header at byte {at}: the archive is damaged"


def _number(field: bytes) -> int | None:
    """A number in a header: octal digits, or bytes if the first one has its highest bit set; None if it is none."""
    if field[0] in (0o200, 0o377):
        value = int.from_bytes(field[1:], "big")
        return value if field[0] == 0o200 else value - 256 ** (len(field) - 1)
    try:
        return int(field.split(b"\0", 1)[0].strip().decode("ascii") or "0", 8)
    except ValueError:
        return None


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _pax(data: bytes, at: int) -> dict[str, str]:
    """The records of PAX headers: ``length name=value\\n`` each."""
    found: dict[str, str] = {}
    rest = data
    while rest.strip(b"\0"):
        length, blank, _ = rest[:20].partition(b" ")
        size = int(length) if blank and length.isdigit() else 0
        name, equals, value = rest[len(length) + 1 : size - 1].partition(b"=")
        if size > len(rest) or not equals or rest[size - 1 : size] != b"\n":
            raise S3FormatError(f"the PAX headers before byte {at} are damaged")
        found[name.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        rest = rest[size:]
    return found


def _decimal(text: str, at: int) -> int:
    if not (text.isascii() and text.isdigit()):
        raise S3FormatError(f"the PAX headers of the file at byte {at} have no valid size: {text!r:.40}")
    return int(text)


def entries_of(data: bytes, position: int) -> list[Entry]:
    """The files in some blocks of an archive, which begin with a header at ``position``.

    Raises:
        S3FormatError: they do not, or end in the middle of a file.
    """
    parser = TarParser(position)
    found = list(parser.feed(data))
    parser.finish()
    return found
