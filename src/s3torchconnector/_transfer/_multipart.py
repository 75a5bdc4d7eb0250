"""Arithmetic of multipart uploads.

S3 takes at most 10,000 parts of 5 MiB to 5 GiB (the last may be smaller). An upload whose length nobody knows starts
with small parts and doubles them every 900, so that even the smallest part size reaches S3's largest object.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from s3torchconnector._config import MAX_PART_SIZE
from s3torchconnector._wire import CompletedPart

MAX_PARTS = 10_000
_PARTS_OF_ONE_SIZE = 900


def size_of_part(number: int, part_size: int) -> int:
    """Bytes of part ``number`` (from 1) of an upload that starts with parts of ``part_size`` bytes."""
    return min(MAX_PART_SIZE, part_size << ((number - 1) // _PARTS_OF_ONE_SIZE))


def multipart_etag(parts: Sequence[CompletedPart]) -> str | None:
    """The ETag S3 gives an object made of these parts; None where a part's is no MD5 (SSE-KMS, other servers).

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
    """
    try:
        digests = b"".join(bytes.fromhex(part.etag.strip('"')) for part in parts)
    except ValueError:
        return None
    if len(digests) != 16 * len(parts):
        return None
    return f'"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"'
