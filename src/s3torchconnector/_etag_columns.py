"""ETags in little memory. Pure.

Most are an MD5 sum (32 digits), those of objects in parts with the number of parts (``-12``).
"""

from __future__ import annotations

import re
from array import array

MD5, PARTS, TEXT = "md5", "parts", "text"
KINDS = (MD5, PARTS, TEXT)
"""How a manifest stores its ETags: 16 bytes each; these and a number of parts; or as they are."""

_SUM = re.compile(r"([0-9a-f]{32})(?:-([1-9][0-9]{0,4}))?", re.ASCII)
_NO_HEX_DIGITS = dict.fromkeys(map(ord, "0123456789abcdef"))
_MOST_PARTS = 0xFFFF


class EtagColumns:
    """Collects ETags (without quotes), as the least of ``KINDS`` that holds all of them."""

    def __init__(self) -> None:
        self._sums = bytearray()
        self._parts = array("H")  # 0 for none
        self._text: bytearray | None = None
        self._ends = array("Q")

    def add(self, etag: str) -> None:
        """Add the next one."""
        if self._text is None:
            match = _SUM.fullmatch(etag)
            if match is not None and (parts := int(match[2] or 0)) <= _MOST_PARTS:
                self._sums += bytes.fromhex(match[1])
                self._parts.append(parts)
                return
            self._become_text()
        assert self._text is not None
        self._text += etag.encode("utf-8", "surrogateescape")
        self._ends.append(len(self._text))

    def extend(self, etags: list[str]) -> None:
        """Add the next ones."""
        joined = "".join(etags)
        are_sums = all(len(etag) == 32 for etag in etags) and not joined.translate(_NO_HEX_DIGITS)
        if self._text is None and are_sums:
            self._sums += bytes.fromhex(joined)
            self._parts.frombytes(bytes(self._parts.itemsize * len(etags)))
            return
        for etag in etags:
            self.add(etag)

    def __getitem__(self, i: int) -> str:
        """The one that was added as number ``i``."""
        if self._text is None:
            return unpacked(self._sums[16 * i : 16 * i + 16], self._parts[i])
        return self._text[self._ends[i - 1] if i else 0 : self._ends[i]].decode("utf-8", "surrogateescape")

    def _become_text(self) -> None:
        self._text = bytearray()
        for i, parts in enumerate(self._parts):
            self._text += unpacked(self._sums[16 * i : 16 * i + 16], parts).encode()
            self._ends.append(len(self._text))

    @property
    def kind(self) -> str:
        """Which of ``KINDS`` they are."""
        return TEXT if self._text is not None else PARTS if any(self._parts) else MD5

    def columns(self) -> dict[str, bytearray | array[int]]:
        """The columns of a manifest's file, by name."""
        if self._text is not None:
            return {"etags": self._text, "etag_ends": self._ends}
        return {"etags": self._sums, **({"etag_parts": self._parts} if self.kind == PARTS else {})}


def unpacked(digest: bytes | bytearray | memoryview, parts: int) -> str:
    """The ETag of a sum and a number of parts."""
    return f"{digest.hex()}-{parts}" if parts else digest.hex()
