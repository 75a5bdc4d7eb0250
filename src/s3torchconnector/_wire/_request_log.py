"""The line of the log for each request that succeeded."""

from __future__ import annotations

import logging
import time

from s3torchconnector._uri import display_uri
from s3torchconnector._wire._exchange import Exchange
from s3torchconnector._wire._operations import Request


def log_request(log: logging.Logger, request: Request, exchange: Exchange, attempt: int) -> None:
    """Write it, at level DEBUG."""
    response = exchange.response
    assert response is not None
    log.debug(
        "%s %s range=%s status=%d bytes=%d ms=%.1f attempt=%d request_id=%s",
        request.operation,
        display_uri(request.bucket, request.key),
        request.headers.get("range", "-"),
        response.status,
        response.received or sum(map(len, request.body)),
        (time.perf_counter() - exchange.started) * 1e3,
        attempt,
        response.headers.get("x-amz-request-id", "-"),
    )
