"""The sizes of an upload's parts, and the ETags of what is stored. Pure.

S3 takes at most 10,000 parts of 5 MiB to 5 GiB (the last may be smaller), 50 TB in all. An upload of unknown length
begins with small parts, and doubles their size every 900 parts. From 5 MiB it reaches 9 TiB, and from the default 8 MiB
12 TiB. If its length is known, all parts but the last have one size, and there are no more of them than that.
Cloudflare R2 demands parts of one size of all uploads.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
https://developers.cloudflare.com/r2/objects/multipart-objects/#limitations
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from s3torchconnector._config import MAX_PART_SIZE, MIB, MIN_PART_SIZE
from s3torchconnector._errors import S3Exception
from s3torchconnector._uri import display_uri
from s3torchconnector._wire import Buffer, CompletedPart

MAX_PARTS = 10_000
_PARTS_OF_ONE_SIZE = 900
_RESERVE = 200  # parts for what an object has beyond its expected size: headers, gaps between tensors
_EQUAL_SIZE = 32 * MIB  # of parts of one size, of an upload of unknown length: they hold 312 GiB


def size_of_part(number: int, part_size: int) -> int:
    """Bytes of part ``number`` (from 1) of an upload that begins with parts of ``part_size`` bytes."""
    return min(MAX_PART_SIZE, part_size << ((number - 1) // _PARTS_OF_ONE_SIZE))


def equal_part_size(part_size: int, size: int | None = None) -> int:
    """The size of all parts but the last, in an upload of about ``size`` bytes, or of an unknown number of bytes."""
    if size is None:
        return max(part_size, _EQUAL_SIZE)
    most, left, number = 0, size, 1
    while left > 0 and most < MAX_PARTS:  # how many parts there are if they grow
        step = size_of_part(number, part_size)
        count = min(_PARTS_OF_ONE_SIZE, -(-left // step), MAX_PARTS - most)
        most, left, number = most + count, left - count * step, number + count
    most = min(most, MAX_PARTS - _RESERVE)
    while -(-size // part_size) > max(1, most) and part_size < MAX_PART_SIZE:
        part_size = min(MAX_PART_SIZE, 2 * part_size)
    return part_size


def copied_ranges(size: int, part_size: int) -> list[tuple[int, int]]:
    """The first and the last byte of each part of a copy of ``size`` bytes; all parts but the last have one size.

    That is ``part_size``, or as many MiB as it takes to have no more parts than S3 allows.
    """
    needed = -(-size // MAX_PARTS)
    step = max(part_size, -(-needed // MIB) * MIB)
    return [(start, min(start + step, size) - 1) for start in range(0, size, step)]


def least_of_part(number: int) -> int:
    """The fewest bytes of part ``number`` with which an upload still reaches the largest object."""
    return size_of_part(number, MIN_PART_SIZE)


def largest_upload(part_size: int) -> int:
    """The most bytes of an upload that begins with parts of ``part_size`` bytes."""
    firsts = range(1, MAX_PARTS + 1, _PARTS_OF_ONE_SIZE)
    return sum(min(_PARTS_OF_ONE_SIZE, MAX_PARTS + 1 - first) * size_of_part(first, part_size) for first in firsts)


def too_large(bucket: str, key: str, part_size: int, equal_size: int | None = None) -> S3Exception:
    """The error for bytes after the last part that an upload may have, whose parts have ``equal_size`` or grow."""
    largest = largest_upload(part_size) if equal_size is None else MAX_PARTS * equal_size
    advice = "S3 stores no larger objects: split it"
    if part_size < MAX_PART_SIZE:
        advice = (
            f"Raise part_size in S3ClientConfig, now {part_size}, to at most {MAX_PART_SIZE}: then an object may have "
            f"{largest_upload(MAX_PART_SIZE)} bytes"
        )
    return S3Exception(
        f"{display_uri(bucket, key)} has more bytes than the {MAX_PARTS} parts of one upload hold, {largest}; nothing "
        f"was stored. {advice}",
        operation="UploadPart",
        bucket=bucket,
        key=key,
    )


def multipart_etag(parts: Sequence[CompletedPart]) -> str | None:
    """The ETag that S3 gives an object of these parts; None if the ETag of a part is not an MD5 (SSE-KMS, other
    servers).

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
    """
    try:
        digests = b"".join(bytes.fromhex(part.etag.strip('"')) for part in parts)
    except ValueError:
        return None
    if len(digests) != 16 * len(parts):
        return None
    return f'"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"'


def md5_etag(body: Sequence[Buffer]) -> str:
    """The ETag that S3 gives an object of these bytes, sent in one request, unless it is encrypted by SSE-KMS."""
    digest = hashlib.md5(usedforsecurity=False)
    for piece in body:
        digest.update(piece)
    return f'"{digest.hexdigest()}"'
