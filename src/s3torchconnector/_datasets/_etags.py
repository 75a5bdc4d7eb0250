"""ETags in little memory. Pure.

Most are an MD5 sum (32 digits), those of objects in parts with the number of parts (``-12``).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable

MD5, PARTS, TEXT = "md5", "parts", "text"
KINDS = (MD5, PARTS, TEXT)
"""How a manifest stores its ETags: 16 bytes each; these and a number of parts; or as they are."""

_SUM = re.compile(r"([0-9a-f]{32})(?:-([1-9][0-9]{0,4}))?", re.ASCII)


def kind_of(etags: Iterable[str]) -> str:
    """The least of ``KINDS`` that holds all of them (without quotes)."""
    kind = MD5
    for etag in etags:
        match = _SUM.fullmatch(etag)
        if match is None or (match[2] and int(match[2]) > 0xFFFF):
            return TEXT
        if match[2]:
            kind = PARTS
    return kind


def packed(etag: str) -> tuple[bytes, int]:
    """The sum of an ETag, and the number of its parts, 0 for none."""
    digits, _, parts = etag.partition("-")
    return bytes.fromhex(digits), int(parts or 0)


def unpacked(digest: bytes | memoryview, parts: int) -> str:
    """The ETag of a sum and a number of parts."""
    return f"{digest.hex()}-{parts}" if parts else digest.hex()


def pack_parts(parts: Iterable[int]) -> bytes:
    """Numbers of parts as a column."""
    numbers = list(parts)
    return struct.pack(f"<{len(numbers)}H", *numbers)
