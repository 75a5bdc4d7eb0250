"""What the files of a cache look like. Pure.

An *index* has a header, the *state*, and a table of entries, which give the positions of the bytes of ranges of
objects. *Segments* are files of records: a head, and the bytes. An entry of the index counts only if the record agrees:
a record names its own range, by a unique hash. So an entry may be torn, outdated or overwritten by another process at
any moment, and no lock guards the table.

All numbers are little-endian. A file of another layout needs another ``VERSION``.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from functools import cache
from hashlib import blake2b
from typing import NamedTuple
from zlib import crc32

from s3torchconnector._config import KIB, MIB
from s3torchconnector._wire import ALGORITHMS, Algorithm

VERSION = 1
INDEX_NAME = "s3cache.index"
SMALLEST_LIMIT = 1 * MIB
HEADER_SIZE = 4096
STATE_AT = 64
BUCKET_SIZE = 512

_SUFFIX = ".s3cache"
_MAGIC = b"s3cache\n"
_HEADER = struct.Struct("<8sIIQQQ")  # magic, version, CRC-32 of that and of what follows: ``Geometry``
_STATE = struct.Struct("<5QI")  # see ``State``, and the CRC-32 of it
_ENTRY = struct.Struct("<8sQIIII")  # tag, segment, offset, length, CRC-32 of these, nothing
_RECORD = struct.Struct("<20sIQQ12s4s")  # digest, length and checksum of the bytes, boot, algorithm, magic
_RECORD_MAGIC = b"rec1"
_ALGORITHMS = {algorithm.name.encode().ljust(12, b"\0"): algorithm for algorithm in ALGORITHMS}
_ENTRY_SIZE = _ENTRY.size
_EMPTY = bytes(_ENTRY_SIZE)
_ENTRIES = BUCKET_SIZE // _ENTRY_SIZE
_BYTES_AN_ENTRY = 8 * KIB  # of the limit: smaller samples on average displace each other before the directory is full

STATE_SIZE = _STATE.size
RECORD_HEAD = _RECORD.size


class FutureVersionError(Exception):
    """The index was made by a later release."""


class NoIndexError(Exception):
    """The file is not an index, or a damaged one.

    Attributes:
        is_ours: whether it was one, or was to become one.
    """

    def __init__(self, text: str, *, is_ours: bool) -> None:
        super().__init__(text)
        self.is_ours = is_ours


class Geometry(NamedTuple):
    """The sizes of a directory's files, decided when its index is made.

    Attributes:
        buckets: of ``BUCKET_SIZE`` bytes in the table.
        segment_size: the most bytes of a segment.
        made_for: the limit of the directory when it was made.
    """

    buckets: int
    segment_size: int
    made_for: int

    @classmethod
    def of_limit(cls, max_bytes: int) -> Geometry:
        """For a directory of so many bytes."""
        segment = min(64 * MIB, max(256 * KIB, max_bytes // 32))
        return cls(max(64, max_bytes // (_BYTES_AN_ENTRY * _ENTRIES)), segment - segment % 4096, max_bytes)

    @property
    def index_size(self) -> int:
        """Bytes of the index."""
        return HEADER_SIZE + self.buckets * BUCKET_SIZE

    def segments(self, max_bytes: int) -> int:
        """How many segments fit into a limit, together with the index."""
        return (max_bytes - self.index_size) // self.segment_size

    def encoded(self) -> bytes:
        """The header of the index."""
        return _HEADER.pack(_MAGIC, VERSION, self._check(), *self)

    def _check(self) -> int:
        return crc32(struct.pack("<IQQQ", VERSION, *self))


def read_header(data: bytes) -> Geometry:
    """
    Raises:
        NoIndexError: it is no header.
        FutureVersionError: a later release has written it.
    """
    if len(data) < _HEADER.size or data[:8] != _MAGIC:
        is_ours = data[:8] == _MAGIC or not any(data)
        raise NoIndexError("it does not begin like an index", is_ours=is_ours)
    _, version, check, *numbers = _HEADER.unpack_from(data)
    if version > VERSION:
        raise FutureVersionError(f"it has version {version}, and this release knows version {VERSION}")
    geometry = Geometry(*numbers)
    if version != VERSION or check != geometry._check():
        raise NoIndexError("its header is damaged", is_ours=True)
    return geometry


class State(NamedTuple):
    """How many segments there are. Written by the owner of the lock.

    Attributes:
        next: the number of the next segment: larger than that of any before.
        segments: how many there are, or more.
        evictions: how many were deleted to make room.
        max_bytes: the limit.
        boot: during which run of the kernel this was written: after another one, files may not be what it says.
    """

    next: int
    segments: int
    evictions: int
    max_bytes: int
    boot: int

    def encoded(self) -> bytes:
        """As it is stored."""
        data = struct.pack("<5Q", *self)
        return data + struct.pack("<I", crc32(data))


def read_state(data: bytes) -> State | None:
    """The state; None if it is damaged."""
    if len(data) != STATE_SIZE:
        return None
    *numbers, check = _STATE.unpack(data)
    return State(*numbers) if check == crc32(data[:-4]) else None


def segment_name(number: int) -> str:
    """The name of a segment's file."""
    return f"{number:016x}{_SUFFIX}"


def segment_number(name: str) -> int | None:
    """The reverse of ``segment_name``; None for the name of anything else."""
    digits = name.removesuffix(_SUFFIX)
    if len(digits) != 16 or digits == name or not set(digits) <= set("0123456789abcdef"):
        return None
    return int(digits, 16)


def digest_of(endpoint: str, bucket: str, key: str, etag: str, start: int, stop: int) -> bytes:
    """What identifies some bytes of one version of an object, on one server."""
    text = f"{endpoint}\0{bucket}\0{key}\0{etag}\0{start}\0{stop}"
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=20).digest()


class Entry(NamedTuple):
    """Where the bytes of a range are said to lie.

    Attributes:
        segment: the number of the segment.
        offset: of the record in it.
        length: of the bytes.
    """

    segment: int
    offset: int
    length: int


def bucket_at(digest: bytes, geometry: Geometry) -> int:
    """The position in the index of the only bucket that may have an entry of ``digest``."""
    return HEADER_SIZE + int.from_bytes(digest[8:16], "little") % geometry.buckets * BUCKET_SIZE


def find(bucket: bytes, digest: bytes) -> Entry | None:
    """The entry of ``digest`` in its bucket, if there is one that is not torn."""
    at = _place_of(bucket, digest[:8])
    if at is None:
        return None
    _, segment, offset, length, check, _ = _ENTRY.unpack_from(bucket, at)
    return Entry(segment, offset, length) if check == crc32(bucket[at : at + 24]) else None


def place_for(bucket: bytes, digest: bytes, chance: int = 0) -> int:
    """The position in the bucket at which an entry of ``digest`` is to be written.

    It is the position of its previous entry, or a free one, or that of the oldest entry. If two processes look for a
    free one at the same time, each has its own ``chance``, so that neither loses its entry.
    """
    at = _place_of(bucket, digest[:8])
    if at is not None:
        return at
    start = chance % _ENTRIES * _ENTRY_SIZE
    at = _place_of(bucket[start:] + bucket[:start], _EMPTY)
    if at is not None:
        return (at + start) % BUCKET_SIZE
    return min(range(0, BUCKET_SIZE, _ENTRY_SIZE), key=lambda place: _age(bucket, place))


def encode_entry(digest: bytes, entry: Entry) -> bytes:
    """An entry as it is stored."""
    data = struct.pack("<8sQII", digest[:8], *entry)
    return data + struct.pack("<II", crc32(data), 0)


def count_entries(table: bytes, segments: Collection[int]) -> int:
    """How many entries of a part of the table are of these segments."""
    return sum(map(frozenset(segments).__contains__, memoryview(table).cast("Q")[1::4].tolist()))


def _place_of(bucket: bytes, beginning: bytes) -> int | None:
    at = bucket.find(beginning)
    while at >= 0 and at % _ENTRY_SIZE:
        at = bucket.find(beginning, at + 1)
    return at if at >= 0 else None


def _age(bucket: bytes, at: int) -> int:
    segment, check = struct.unpack_from("<Q8xI", bucket, at + 8)
    return int(segment) if check == crc32(bucket[at : at + 24]) else -1


def encode_record_head(digest: bytes, data: bytes | memoryview, boot: int) -> bytes:
    """What stands before the bytes in a segment."""
    algorithm = ALGORITHMS[0]
    check = algorithm.update(data, 0)
    return _RECORD.pack(digest, len(data), check, boot, algorithm.name.encode(), _RECORD_MAGIC)


class RecordHead(NamedTuple):
    """The head of a record that is known to hold the requested range.

    Attributes:
        length: how many bytes it has.
        check: their checksum.
        boot: see ``State``.
        algorithm: of the checksum; None if it cannot be computed here.
    """

    length: int
    check: int
    boot: int
    algorithm: Algorithm | None

    def is_of(self, data: bytes) -> bool:
        """Whether these are the bytes. ``algorithm`` must be known."""
        return self.algorithm is not None and self.algorithm.update(data, 0) == self.check


def read_record_head(data: bytes, digest: bytes) -> RecordHead | None:
    """The head of a record; None if it is not one of ``digest``."""
    if len(data) != RECORD_HEAD or data[:20] != digest or data[-4:] != _RECORD_MAGIC:
        return None
    _, length, check, boot, name, _ = _RECORD.unpack(data)
    return RecordHead(length, check, boot, _ALGORITHMS.get(name))


@cache
def this_boot() -> int:
    """A number of this run of the kernel; 0, which equals none, if the system does not tell (macOS)."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return int.from_bytes(blake2b(file.read().strip(), digest_size=8).digest(), "little") or 1
    except OSError:
        return 0


def is_of_this_boot(boot: int) -> bool:
    """Whether something was written since the machine was started."""
    return boot == this_boot() != 0
