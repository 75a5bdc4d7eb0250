"""A range of an object that is read as if it were an object.

What is fetched ahead ends where the range ends. S3's checksum is of the whole object, so nothing is compared with it: a
caller that needs verification must know a checksum of the range.
"""

from __future__ import annotations

from copy import copy
from typing import Any

from s3torchconnector._transfer.engine._ranges import Range
from s3torchconnector._transfer.reading._object_reader import ObjectReader


class RangeReader:
    """An ``ObjectReader`` that shows only a range, with its first byte at position 0.

    Args:
        reader: made with the range as ``start`` and ``limit``.
        start, stop: the range, inside the object.
    """

    def __init__(self, reader: ObjectReader, start: int, stop: int) -> None:
        self._reader = reader
        self._range = Range(start, stop)

    def size(self) -> int:
        """How many bytes the range has. Makes no request."""
        return self._range.size

    def prefetch(self, likely_size: int | None = None, most: int | None = None) -> None:
        """See ``ObjectReader.prefetch``."""
        if self._range:
            self._reader.prefetch()

    def await_head(self) -> None:
        """See ``ObjectReader.await_head``."""
        if self._range:
            self._reader.await_head()

    def hand_out(self) -> int | None:
        """See ``ObjectReader.hand_out``. Returns the size of the range."""
        self._reader.hand_out()
        return self._range.size

    def readinto(self, position: int, view: memoryview) -> int:
        """See ``ObjectReader.readinto``."""
        count = min(len(view), max(0, self._range.size - position))
        return self._reader.readinto(self._range.start + position, view[:count]) if count else 0

    def read(self, position: int, count: int) -> bytes:
        """See ``ObjectReader.read``."""
        start, stop = self._range.start + position, min(self._range.stop, self._range.start + position + count)
        return self._reader.read_range(Range(start, stop)) if start < stop else b""

    def read_to_end(self, position: int) -> bytes:
        """See ``ObjectReader.read_to_end``."""
        return self.read(position, self._range.size)

    def buffered(self, position: int) -> memoryview | bytes:
        """See ``ObjectReader.buffered``."""
        start = self._range.start + position
        return self._reader.buffered(start)[: max(0, self._range.stop - start)]

    def close(self) -> None:
        """See ``ObjectReader.close``."""
        self._reader.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return RangeReader, (copy(self._reader), *self._range)
