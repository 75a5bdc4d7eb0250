"""Byte ranges as pure arithmetic. All are half-open: ``start`` is included, ``stop`` is not."""

from collections.abc import Iterator
from typing import NamedTuple, NoReturn

from s3torchconnector._errors import S3ProtocolError

# What s3rver and MinIO say of a range of an empty object (https://github.com/minio/minio/issues/20844).
_EMPTY = ("bytes 0-0/0", "bytes 0--1/0")


class Range(NamedTuple):
    """Bytes ``start`` up to ``stop``, without ``stop``."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many bytes these are."""
        return self.stop - self.start

    def __bool__(self) -> bool:
        return self.stop > self.start

    def __len__(self) -> NoReturn:
        # Python takes the length of a tuple for its number of items: ``f(*wanted)`` allocated one item for each byte.
        raise TypeError("a Range is two numbers: use its size, which is in bytes")


class ContentRange(NamedTuple):
    """A Content-Range header: the bytes that follow (none if it was unsatisfied), and the object's size."""

    start: int
    stop: int
    size: int


def split_on_grid(start: int, stop: int, step: int) -> Iterator[Range]:
    """Cut a range at the multiples of ``step``, so that every reader requests the same ranges of an object."""
    while start < stop:
        end = min(stop, start - start % step + step)
        yield Range(start, end)
        start = end


def _is_number(text: str) -> bool:
    return 0 < len(text) <= 19 and text.isascii() and text.isdigit()


def parse_content_range(text: str) -> ContentRange:
    """Parse a Content-Range header (RFC 9110, section 14.4).

    Raises:
        S3ProtocolError: it is malformed or contradicts itself.
    """
    if text in _EMPTY:
        return ContentRange(0, 0, 0)
    unit, _, value = text.partition(" ")
    span, _, size_text = value.partition("/")
    first_text, _, last_text = span.partition("-")
    numbers = (size_text,) if span == "*" else (first_text, last_text, size_text)
    if unit != "bytes" or not all(map(_is_number, numbers)):
        raise S3ProtocolError(f"the response has a malformed Content-Range: {text[:60]!r}")
    size = int(size_text)
    if span == "*":
        return ContentRange(0, 0, size)
    first, last = int(first_text), int(last_text)
    if not first <= last < size:
        raise S3ProtocolError(f"the response has an impossible Content-Range: {text[:60]!r}")
    return ContentRange(first, last + 1, size)
