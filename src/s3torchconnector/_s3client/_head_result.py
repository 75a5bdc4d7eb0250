"""The headers of a HeadObject response as a ``HeadObjectResult``. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from s3torchconnector._types import HeadObjectResult, RestoreStatus
from s3torchconnector._wire import parse_http_date


def head_result(headers: Mapping[str, str], size: int) -> HeadObjectResult:
    """The properties in the headers (by names in lower case) of the object of this size in bytes."""
    restore = headers.get("x-amz-restore")
    return HeadObjectResult(
        headers.get("etag", ""),
        size,
        parse_http_date(headers.get("last-modified", "")),
        headers.get("x-amz-storage-class"),
        None if restore is None else _restore_status(restore),
        headers.get("x-amz-archive-status"),
    )


def _restore_status(header: str) -> RestoreStatus:
    """The status from a header such as ``ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"``."""
    _, _, expiry = header.partition('expiry-date="')
    return RestoreStatus('ongoing-request="true"' in header, parse_http_date(expiry.rstrip('"')) or None)
