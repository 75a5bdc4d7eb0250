"""The checksums of S3 that can be combined from those of parts: CRCs. Pure.

CRC64NVME is S3's default, and CRC32C is common; both need awscrt, whose native code is fast (0.05 s a GiB). CRC32 is
always available (zlib, 0.3 s a GiB). All of them release the interpreter lock for large buffers. ``combine`` computes
the checksum of two adjacent ranges from their checksums, so that each thread sums the ranges that it moves.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import mmap
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache, lru_cache, reduce
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from s3torchconnector._late_imports import no_fork
from s3torchconnector._wire._connection import Buffer

_PREFIX = "x-amz-checksum-"
TYPE_HEADER = "x-amz-checksum-type"
ALGORITHM_HEADER = "x-amz-checksum-algorithm"
_is_needed = mmap.mmap(-1, 1)  # whether awscrt was imported: by this process, or by one that was forked from it


class Algorithm:
    """One kind of CRC.

    Attributes:
        name: S3's name for it.
        bits: its width.
        polynomial: the generator, reflected, without its highest term.
        update: continues a CRC: takes a buffer and the CRC of the bytes before it.
    """

    def __init__(self, name: str, bits: int, polynomial: int, update: Callable[[Buffer, int], int]) -> None:
        self.name = name
        self.bits = bits
        self.polynomial = polynomial
        self.update = update

    @property
    def header(self) -> str:
        """The header that carries the checksum."""
        return _PREFIX + self.name.lower()

    def of(self, buffers: Iterable[Buffer]) -> int:
        """The CRC of the buffers' bytes, in order."""
        return reduce(lambda crc, buffer: self.update(buffer, crc), buffers, 0)

    def combine(self, first: int, second: int, second_size: int) -> int:
        """The CRC of two adjacent ranges, from their CRCs and the length of the second in bytes."""
        return self._multiply(first, _shift(self, second_size)) ^ second

    def encode(self, crc: int) -> str:
        """The text of a header: big-endian, in base64."""
        return base64.b64encode(crc.to_bytes(self.bits // 8, "big")).decode()

    def decode(self, text: str) -> int | None:
        """The reverse of ``encode``; None for any other text, such as a checksum of checksums (``...-12``)."""
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            return None
        return int.from_bytes(data, "big") if len(data) == self.bits // 8 else None

    def describe(self, crc: int) -> str:
        """The text under which a program may keep it: ``CRC32:yZRlqg==``."""
        return f"{self.name}:{self.encode(crc)}"

    def _multiply(self, a: int, b: int) -> int:
        """The product of two polynomials modulo the generator; the highest bit is the constant term."""
        product = 0
        for bit in range(self.bits - 1, -1, -1):
            if a >> bit & 1:
                product ^= b
            b = b >> 1 ^ (self.polynomial if b & 1 else 0)
        return product


@lru_cache(maxsize=1024)
def _shift(algorithm: Algorithm, size: int) -> int:
    """x to the power of ``8 * size``: the factor that ``size`` more bytes apply to a CRC."""
    power, square = 1 << (algorithm.bits - 1), 1 << (algorithm.bits - 1 - 8)
    while size:
        if size & 1:
            power = algorithm._multiply(power, square)
        square = algorithm._multiply(square, square)
        size >>= 1
    return power


@cache
def _awscrt() -> Any:
    with no_fork:
        from awscrt import checksums  # here: it takes 40 ms, for which a small object should not wait

    _is_needed[0] = 1
    return checksums


def _has_native() -> bool:
    """Whether awscrt is there, in a version that has all of these, from its source: importing it takes 40 ms.

    Another package may have brought one that is older than ours would be.
    """
    found = find_spec("awscrt")
    if found is None or found.origin is None:
        return False
    try:
        return "def crc64nvme(" in Path(found.origin).with_name("checksums.py").read_text(encoding="utf-8")
    except OSError:  # only its compiled form is there
        return True


def _crc64nvme(data: Buffer, crc: int) -> int:
    return cast(int, _awscrt().crc64nvme(data, crc))


def _crc32c(data: Buffer, crc: int) -> int:
    return cast(int, _awscrt().crc32c(data, crc))


CRC32 = Algorithm("CRC32", 32, 0xEDB88320, zlib.crc32)
_NATIVE = (
    (
        Algorithm("CRC64NVME", 64, 0x9A6C9329AC4BC9B5, _crc64nvme),
        Algorithm("CRC32C", 32, 0x82F63B78, _crc32c),
    )
    if _has_native()
    else ()
)  # of the extra "checksums"
ALGORITHMS: tuple[Algorithm, ...] = (*_NATIVE, CRC32)
"""Those that can be computed in this environment, the best first."""
_BY_HEADER = {algorithm.header: algorithm for algorithm in ALGORITHMS}
_BY_NAME = {algorithm.name: algorithm for algorithm in ALGORITHMS}


def import_for_workers() -> None:
    """Import awscrt now, if processes that were forked from this one have: each later one would for itself."""
    if _NATIVE and _is_needed[0]:
        with suppress(ImportError):  # whoever needs it will see
            _awscrt()


def md5_of(buffers: Iterable[Buffer]) -> str:
    """The Content-MD5 of buffers, joined in order."""
    digest = hashlib.md5(usedforsecurity=False)
    for buffer in buffers:
        digest.update(buffer)
    return base64.b64encode(digest.digest()).decode()


def algorithm_of(description: str) -> Algorithm | None:
    """The algorithm in a text of ``Algorithm.describe``; None if it cannot be computed in this environment."""
    return _BY_NAME.get(description.partition(":")[0])


def offered(headers: Mapping[str, str]) -> dict[Algorithm, int]:
    """The checksums of the whole object in the headers of a response that can be computed in this environment."""
    if _BY_HEADER.keys().isdisjoint(headers) or headers.get(TYPE_HEADER, "FULL_OBJECT") != "FULL_OBJECT":
        return {}
    found = {}
    for header, algorithm in _BY_HEADER.items():
        text = headers.get(header)
        crc = None if text is None else algorithm.decode(text)
        if crc is not None:
            found[algorithm] = crc
    return found


def why_none(headers: Mapping[str, str]) -> str:
    """Why ``offered`` finds nothing in the headers of a response, for an error text."""
    if headers.get(TYPE_HEADER, "FULL_OBJECT") != "FULL_OBJECT":
        return "the server stores a checksum of the parts' checksums, not one of the whole object"
    others = (TYPE_HEADER, ALGORITHM_HEADER)
    names = [name[len(_PREFIX) :].upper() for name in headers if name.startswith(_PREFIX) and name not in others]
    if not names:
        return "the server offers no checksum of the whole object"
    advice = "" if _NATIVE else " (from the checkout, pip install '.[checksums]' adds CRC64NVME and CRC32C)"
    return f"the server offers only checksums that this environment cannot compute: {', '.join(names)}{advice}"
