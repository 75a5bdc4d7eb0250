"""Which responses count as throttling, and when the request is retried."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from s3torchconnector import S3ClientConfig
from s3torchconnector._errors import S3ConnectionError, S3Exception, S3ServiceError, S3ThrottledError, S3TimeoutError
from s3torchconnector._wire import operations, read_document
from s3torchconnector._wire._retry import RetryPolicy, RetryQuota, RetryRule
from tests.servers.http_messages import response, s3_error
from tests.servers.scripted import ScriptedServer
from tests.wire.support import get, in_turn, open_caller

pytestmark = pytest.mark.usefixtures("keys")
# https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html
CODES = [
    "BandwidthLimitExceeded", "EC2ThrottledException", "LimitExceededException", "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException", "RequestLimitExceeded", "RequestThrottled", "RequestThrottledException",
    "SlowDown", "ThrottledException", "Throttling", "ThrottlingException", "TooManyRequestsException",
    "TransactionInProgressException",
]  # fmt: skip
GOOD = response(200, b"body")


@pytest.mark.parametrize("status", [400, 403, 503])
@pytest.mark.parametrize("code", CODES)
def test_every_throttling_code_is_retried_with_any_status(code: str, status: int) -> None:
    refusals = [s3_error(status, code)] * 4  # more than an error that is no throttling may have
    with ScriptedServer(handler=in_turn(*refusals, GOOD)) as server, open_caller(server.endpoint) as caller:
        assert get(caller) == b"body"


@pytest.mark.parametrize(
    "refusal", [response(429), response(429, b"<html>Too Many Requests</html>"), response(503), response(503, b"busy")]
)
def test_a_throttling_status_without_a_document_is_retried(refusal: bytes) -> None:
    with ScriptedServer(handler=in_turn(*[refusal] * 4, GOOD)) as server, open_caller(server.endpoint) as caller:
        assert get(caller) == b"body"


def test_a_throttled_head_is_retried() -> None:
    refusal = response(503, headers={"Content-Length": "0"})
    with (
        ScriptedServer(handler=in_turn(*[refusal] * 4, response(200))) as server,
        open_caller(server.endpoint) as caller,
    ):
        caller.call(operations.head_object("b", "k"), read_document)
        assert len(server.requests) == 5


# -- Retry-After ----------------------------------------------------------------------------------------------------

NOW = 1_800_000_000.0
DATED = {"Date": formatdate(NOW, usegmt=True), "Retry-After": formatdate(NOW + 7, usegmt=True)}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0.5"}, 0.5),
        (DATED, 7.0),
        ({"Retry-After": "0"}, None),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "soon"}, None),
        ({**DATED, "Retry-After": formatdate(NOW - 7, usegmt=True)}, None),
    ],
)
@pytest.mark.parametrize("status", [429, 500, 503])
def test_errors_have_the_servers_retry_after(headers: dict[str, str], seconds: float | None, status: int) -> None:
    with (
        ScriptedServer(handler=in_turn(response(status, headers=headers))) as server,
        open_caller(server.endpoint, S3ClientConfig(max_attempts=1)) as caller,
        pytest.raises(S3Exception) as caught,
    ):
        get(caller)
    assert getattr(caught.value, "retry_after", "unknown") == seconds


@pytest.mark.parametrize("kind", [S3ThrottledError, S3ServiceError])
def test_a_pause_is_never_shorter_than_retry_after(kind: type[S3ServiceError]) -> None:
    error = kind("x", status=503, retry_after=7.0)
    for drawn in (0.0, 0.5, 0.999):
        delay = RetryRule(RetryPolicy(10), RetryQuota(), lambda drawn=drawn: drawn).delay(error, 3)
        assert delay is not None
        assert 7.0 <= delay <= 8.0
    error.retry_after = 86400.0  # a server's mistake must not end the work
    assert RetryRule(RetryPolicy(10), RetryQuota(), lambda: 0.0).delay(error, 3) == 60.0


def test_a_request_is_retried_after_retry_after() -> None:
    refusal = s3_error(503, "SlowDown").replace(b"\r\n", b"\r\nRetry-After: 0.3\r\n", 1)
    with ScriptedServer(handler=in_turn(refusal, GOOD)) as server, open_caller(server.endpoint) as caller:
        began = time.perf_counter()
        assert get(caller) == b"body"
        assert time.perf_counter() - began >= 0.3


def test_retry_after_beyond_the_deadline_is_a_timeout_at_once() -> None:
    refusal = s3_error(503, "SlowDown").replace(b"\r\n", b"\r\nRetry-After: 50\r\n", 1)
    config = S3ClientConfig(operation_timeout=10.0)
    with ScriptedServer(handler=in_turn(refusal)) as server, open_caller(server.endpoint, config) as caller:
        began = time.perf_counter()
        with pytest.raises(S3TimeoutError, match=r"operation_timeout=10 s.*SlowDown"):
            get(caller)
        assert time.perf_counter() - began < 5.0


# -- the quota ------------------------------------------------------------------------------------------------------


def test_retries_with_an_empty_quota_are_spread_over_time() -> None:
    pauses = []
    for process in range(100):
        quota = RetryQuota()
        rule = RetryRule(RetryPolicy(1000), quota, lambda process=process: process / 100)
        while quota.spend():
            pass
        pauses.append(rule.delay(S3ConnectionError("x"), 5))
    assert len(set(pauses)) == 100
    assert all(pause is not None and 10.0 <= pause <= 15.0 for pause in pauses)
