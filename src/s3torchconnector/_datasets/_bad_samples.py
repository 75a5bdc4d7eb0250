"""Bad samples, which cannot be made from their objects: which errors mean that, and which samples replace them.

A bad image must not end a run of weeks, and leaving it out would give one rank fewer samples than the others. So
another sample replaces it, the same one on any number of ranks and workers. Errors of S3 are not bad samples: training
on other objects during an outage would hide the outage.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from hashlib import blake2b

from s3torchconnector._errors import S3ChecksumError, S3Exception, S3FormatError
from s3torchconnector._uri import display_uri

_log = logging.getLogger(__name__)
_CANDIDATES = 10
_NAMED = 10  # errors that are logged one by one
_EVERY = 1000  # after those, one in so many errors is logged


def is_of_content(error: BaseException) -> bool:
    """Whether an error means that an object's content is wrong, and not that S3 or this program is in trouble.

    Decoders wrap errors of the file that they read, so the error that it was raised from counts as well.
    """
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        if not isinstance(each, Exception) or isinstance(each, MemoryError):
            return False
        if isinstance(each, S3Exception) and not isinstance(each, S3FormatError | S3ChecksumError):
            return False
        each = each.__cause__ or each.__context__
    return True


def candidates(seed: int, epoch: int, position: int, samples: int) -> Iterator[int]:
    """The samples that may replace the one at ``position``, in order."""
    for attempt in range(_CANDIDATES):
        data = struct.pack("<QQQQ", seed, epoch, position, attempt)
        digest = blake2b(data, key=b"s3torchconnector replacement", digest_size=8).digest()
        yield int.from_bytes(digest, "little") % samples


def log(error: BaseException, bucket: str, key: str, count: int) -> None:
    """Log the ``count``-th error of an epoch, unless it is one of many."""
    if count <= _NAMED or count % _EVERY == 0:
        _log.warning(
            "%s: replaced by another sample (error %d of this epoch%s): %s: %s",
            display_uri(bucket, key),
            count,
            f"; from now on, every {_EVERY}th is logged" if count == _NAMED else "",
            type(error).__name__,
            error,
        )


def too_many(error: BaseException, bucket: str, key: str, count: int, most: int) -> S3FormatError:
    """The error to raise when the budget is used up."""
    return S3FormatError(
        f"{count} samples of this epoch could not be made, more than max_errors={most} allows. The last one is "
        f"{display_uri(bucket, key)}: {type(error).__name__}: {error}",
        bucket=bucket,
        key=key,
    )
