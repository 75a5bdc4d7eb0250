"""A writer that knows the CRC-32 of what was written."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from s3torchconnector.s3writer import S3Writer

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class ChecksummedWriter(S3Writer):
    """``S3Writer``; ``crc32`` is that of all bytes so far."""

    crc32 = 0

    def write(self, data: ReadableBuffer) -> int:
        count = super().write(data)
        self.crc32 = zlib.crc32(data, self.crc32)
        return count
