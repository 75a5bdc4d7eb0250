"""The checksums of S3 that can be put together from those of parts: CRCs. Pure.

CRC64NVME is S3's own choice, and CRC32C is often met; both need awscrt, whose code is native and fast (0.05 s a GiB).
CRC32 is always there (zlib, 0.3 s a GiB). All of them let other threads run while they go through large memory.
``combine`` gives the checksum of two neighbours from theirs, so that parts are summed by whoever moves them.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache, reduce
from importlib.util import find_spec
from typing import Any, cast

from s3torchconnector._late_imports import no_fork
from s3torchconnector._wire._connection import Buffer

_PREFIX = "x-amz-checksum-"
TYPE_HEADER = "x-amz-checksum-type"
ALGORITHM_HEADER = "x-amz-checksum-algorithm"


@dataclass(frozen=True, eq=False)
class Algorithm:
    """One kind of CRC.

    Attributes:
        name: S3's name for it.
        bits: its width.
        polynomial: the generator, reflected, without its highest term.
        update: the CRC of what came before followed by a buffer, from the buffer and the CRC of what came before.
    """

    name: str
    bits: int
    polynomial: int
    update: Callable[[Buffer, int], int]

    @property
    def header(self) -> str:
        """The header that carries it."""
        return _PREFIX + self.name.lower()

    def of(self, buffers: Iterable[Buffer]) -> int:
        """The CRC of buffers, one after the other."""
        return reduce(lambda crc, buffer: self.update(buffer, crc), buffers, 0)

    def combine(self, first: int, second: int, second_size: int) -> int:
        """The CRC of two neighbours: theirs, and the length in bytes of the second."""
        return self._multiply(first, _shift(self, second_size)) ^ second

    def encode(self, crc: int) -> str:
        """As headers carry it: big-endian, in base64."""
        return base64.b64encode(crc.to_bytes(self.bits // 8, "big")).decode()

    def decode(self, text: str) -> int | None:
        """The reverse of ``encode``; None where the text is none, as for a checksum of checksums (``...-12``)."""
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            return None
        return int.from_bytes(data, "big") if len(data) == self.bits // 8 else None

    def describe(self, crc: int) -> str:
        """For who stores it: ``CRC32:yZRlqg==``."""
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
    """x to the power of ``8 * size``: what so many bytes behind it make of a CRC."""
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
        from awscrt import checksums  # here: it takes 40 ms, which those who read a small object need not wait for

    return checksums


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
    if find_spec("awscrt")
    else ()
)  # of the extra "checksums"
ALGORITHMS: tuple[Algorithm, ...] = (*_NATIVE, CRC32)
"""Those that can be computed here, the best first."""
_BY_HEADER = {algorithm.header: algorithm for algorithm in ALGORITHMS}
_BY_NAME = {algorithm.name: algorithm for algorithm in ALGORITHMS}


def algorithm_of(description: str) -> Algorithm | None:
    """What a checksum was computed with, by what ``Algorithm.describe`` says of it; None if that is not known here."""
    return _BY_NAME.get(description.partition(":")[0])


def offered(headers: Mapping[str, str]) -> dict[Algorithm, int]:
    """The checksums of a whole object that the headers of an answer tell, and that can be computed here."""
    if headers.get(TYPE_HEADER, "FULL_OBJECT") != "FULL_OBJECT":
        return {}
    found = {}
    for header, algorithm in _BY_HEADER.items():
        text = headers.get(header)
        crc = None if text is None else algorithm.decode(text)
        if crc is not None:
            found[algorithm] = crc
    return found


def why_none(headers: Mapping[str, str]) -> str:
    """Why ``offered`` finds nothing in the headers of an answer, for people."""
    if headers.get(TYPE_HEADER, "FULL_OBJECT") != "FULL_OBJECT":
        return "the server keeps a checksum of the checksums of its parts, and none of the whole object"
    others = (TYPE_HEADER, ALGORITHM_HEADER)
    names = [name[len(_PREFIX) :].upper() for name in headers if name.startswith(_PREFIX) and name not in others]
    if not names:
        return "the server offers no checksum of the whole object"
    advice = "" if _NATIVE else ' (CRC64NVME and CRC32C are, after pip install "s3torchconnector[checksums]")'
    return (
        f"the server offers no checksum of the whole object that can be computed here, only {', '.join(names)}{advice}"
    )
