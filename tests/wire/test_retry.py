"""When a request is retried: the rule as a pure value, then one caller and servers that fail in every way."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3torchconnector import S3ClientConfig
from s3torchconnector._errors import (
    S3AccessDeniedError,
    S3ConfigurationError,
    S3ConnectionError,
    S3CredentialsError,
    S3Exception,
    S3NotFoundError,
    S3ObjectChangedError,
    S3ProtocolError,
    S3ServiceError,
    S3ThrottledError,
    S3TimeoutError,
)
from s3torchconnector._wire import CancelledByCaller, CancelToken, operations, read_document
from s3torchconnector._wire._caller import Caller
from s3torchconnector._wire._retry import RetryPolicy, RetryQuota, RetryRule
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.scripted import Close, Receive, Reset, ScriptedServer, Send
from tests.wire.support import REGION, Handler, get, in_turn, open_caller, open_client

pytestmark = pytest.mark.usefixtures("keys")
DATA = bytes(range(256)) * 40


# -- the rule -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (S3ConnectionError("x"), 10),
        (S3TimeoutError("x"), 10),
        (S3ServiceError("x", status=500), 10),
        (S3ServiceError("x", status=400, code="RequestTimeout"), 10),
        (S3ThrottledError("x", status=429), 100),
        (S3ThrottledError("x", status=503, code="SlowDown"), 100),
        (S3ProtocolError("x"), 3),
        (S3ServiceError("x", status=400), 1),
        (S3ServiceError("x", status=501), 1),
        (S3NotFoundError("x", status=404), 1),
        (S3AccessDeniedError("x", status=403), 1),
        (S3ObjectChangedError("x", status=412), 1),
        (S3ConfigurationError("x"), 1),
        (S3CredentialsError("x"), 1),
    ],
)
def test_attempts_depend_on_the_error(error: S3Exception, attempts: int) -> None:
    rule = RetryRule(RetryPolicy(10), RetryQuota())
    assert attempts == next(failures for failures in range(1, 200) if rule.delay(error, failures) is None)


@given(st.integers(1, 999), st.floats(0, 1, exclude_max=True))
def test_backoff_is_full_jitter_under_a_growing_bound(failures: int, drawn: float) -> None:
    policy = RetryPolicy(1000, first_backoff=0.1, longest_backoff=10.0)
    delay = RetryRule(policy, RetryQuota(), lambda: drawn).delay(S3ConnectionError("x"), failures)
    assert delay == drawn * min(10.0, 0.1 * 2 ** min(failures - 1, 20))
    delay = RetryRule(policy, RetryQuota(), lambda: drawn).delay(S3ThrottledError("x", status=503), failures)
    assert delay == drawn * min(10.0, 0.01 * 2 ** min(failures - 1, 20))


@pytest.mark.parametrize("drawn", [0.0, 0.5, 1.0])
def test_a_refused_connection_is_retried_for_as_long_as_a_restart_takes(drawn: float) -> None:
    with pytest.raises(S3ConnectionError) as caught, open_caller("http://127.0.0.1:1") as caller:
        get(caller)
    rule = RetryRule(RetryPolicy(10), RetryQuota(), lambda: drawn)
    delays = [rule.delay(caught.value, failures) for failures in range(1, 10)]
    assert 24.0 < sum(delay or 0.0 for delay in delays) < 33.0
    assert rule.delay(caught.value, 10) is None


def test_an_empty_quota_slows_retries_but_ends_none() -> None:
    quota = RetryQuota()
    rule = RetryRule(RetryPolicy(1000, longest_backoff=7.0), quota, lambda: 0.0)
    affordable = quota.CAPACITY // quota.COST
    delays = [rule.delay(S3ConnectionError("x"), 1) for _ in range(affordable + 1)]
    assert delays == [0.0] * affordable + [7.0]

    for _ in range(quota.COST):
        quota.earn()

    assert rule.delay(S3ConnectionError("x"), 1) == 0.0
    assert rule.delay(S3ConnectionError("x"), 1) == 7.0


def test_throttling_costs_no_quota() -> None:
    quota = RetryQuota()
    rule = RetryRule(RetryPolicy(1000, longest_backoff=7.0), quota, lambda: 0.0)
    assert {rule.delay(S3ThrottledError("x", status=503), 1) for _ in range(1000)} == {0.0}
    assert quota.spend()


def test_programs_with_the_same_seed_do_not_retry_in_step() -> None:
    """Their own draws are those that they have without retries."""
    random.seed(1)
    expected = random.random()
    delays, draws = set(), set()
    for _ in range(3):
        random.seed(1)
        rule = RetryRule(RetryPolicy(10), RetryQuota())
        delays.add(rule.delay(S3ThrottledError("x", status=503), 1))
        draws.add(random.random())
    assert len(delays) == 3
    assert draws == {expected}


def test_quota_never_grows_beyond_its_capacity() -> None:
    quota = RetryQuota()
    for _ in range(10):
        quota.earn()
    assert [quota.spend() for _ in range(quota.CAPACITY // quota.COST + 1)][-2:] == [True, False]


# -- the loop -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [
        s3_error(503, "SlowDown"),
        s3_error(500, "InternalError"),
        s3_error(400, "RequestTimeout"),
        response(502, b"<html>Bad Gateway</html>"),
        response(429),
        response(504, b""),
        b"garbage\r\n\r\n",
        [Close()],
        [Reset()],
        [Send(response(200, b"whole")[:-1]), Close()],
    ],
    ids=["503", "500", "RequestTimeout", "502 HTML", "429", "504", "garbage", "close", "reset", "cut"],
)
def test_transient_failures_are_retried(failure: Handler) -> None:
    with (
        ScriptedServer(handler=in_turn(failure, response(200, b"whole"))) as server,
        open_caller(server.endpoint) as caller,
    ):
        assert get(caller) == b"whole"
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (s3_error(403, "AccessDenied"), S3AccessDeniedError),
        (s3_error(404, "NoSuchKey"), S3NotFoundError),
        (s3_error(400, "InvalidArgument"), S3ServiceError),
        (s3_error(412, "PreconditionFailed"), S3ServiceError),
        (s3_error(403, "SignatureDoesNotMatch"), S3AccessDeniedError),
    ],
)
def test_permanent_failures_are_not_retried(answer: bytes, kind: type[S3Exception]) -> None:
    with ScriptedServer(handler=in_turn(answer)) as server, open_caller(server.endpoint) as caller:
        with pytest.raises(kind) as caught:
            get(caller)
        assert len(server.requests) == 1
        assert caught.value.attempts == 1
        assert "attempts" not in str(caught.value)


def test_slow_down_in_every_attempt_names_their_number() -> None:
    with ScriptedServer(handler=in_turn(s3_error(503, "SlowDown"))) as server, open_caller(server.endpoint) as caller:
        with pytest.raises(S3ThrottledError, match=r"slow down.*SlowDown.*\(after 9 attempts\)") as caught:
            get(caller)
        assert len(server.requests) == caught.value.attempts == 9
        assert (caught.value.status, caught.value.code, caught.value.request_id) == (503, "SlowDown", "TEST")


def test_max_attempts_of_the_configuration_counts() -> None:
    with ScriptedServer(handler=in_turn(s3_error(500, "InternalError"))) as server:
        config = S3ClientConfig(max_attempts=1)
        caller = Caller(REGION, server.endpoint, config, "test/1")
        with pytest.raises(S3ServiceError, match="InternalError"):
            get(caller)
        caller.close()
        assert len(server.requests) == 1


def test_broken_body_resumes_at_the_last_good_byte() -> None:
    def ranged(start: int, stop: int) -> bytes:
        headers = {"Content-Range": f"bytes {start}-{len(DATA) - 1}/{len(DATA)}", "ETag": '"e"'}
        whole = response(206, DATA[start:], headers)
        return whole[: len(whole) - (len(DATA) - stop)]

    script = [
        [Receive("GET", "/b/k"), Send(ranged(0, 1000)), Close()],
        [Receive("GET", "/b/k"), Send(ranged(1000, 5000), size=700), Close()],
        [Receive("GET", "/b/k"), Send(ranged(5000, len(DATA)))],
    ]
    with ScriptedServer(script) as server, open_client(server.endpoint) as client:
        reader = client.get_object("b", "k")
        assert reader.read() == DATA
        first, second, third = server.requests
        assert "if-match" not in first.headers
        assert (second.range, third.range) == (f"bytes=1000-{len(DATA) - 1}", f"bytes=5000-{len(DATA) - 1}")
        assert second.headers["if-match"] == third.headers["if-match"] == '"e"'


def test_resumed_body_of_another_version_is_never_mixed_in() -> None:
    def part(start: int, etag: str) -> bytes:
        headers = {"Content-Range": f"bytes {start}-{len(DATA) - 1}/{len(DATA)}", "ETag": etag}
        return response(206, DATA[start:], headers)

    script = [[Receive(), Send(part(0, '"a"')[:-10]), Close()], [Receive(), Send(part(len(DATA) - 10, '"b"'))]]
    with ScriptedServer(script) as server, open_client(server.endpoint) as client:
        with pytest.raises(S3ObjectChangedError, match="changed while it was being read"):
            client.get_object("b", "k").read()
        assert len(server.requests) == 2


def test_a_request_function_is_called_before_each_attempt() -> None:
    asked: list[str] = []

    def request() -> operations.Request:
        asked.append(f"k{len(asked)}")
        return operations.get_object("b", asked[-1])

    answers = in_turn(s3_error(500, "InternalError"), response(200, b"x"))
    with ScriptedServer(handler=answers) as server, open_caller(server.endpoint) as caller:
        caller.call(request, read_document)
        assert [each.target for each in server.requests] == ["/b/k0", "/b/k1"]


def test_a_cancelled_call_is_not_retried() -> None:
    token = CancelToken()

    def answer(request: ReceivedRequest) -> bytes:
        token.cancel()
        return s3_error(503, "SlowDown")

    with ScriptedServer(handler=answer) as server, open_caller(server.endpoint) as caller:
        with pytest.raises(CancelledByCaller):
            caller.call(operations.get_object("b", "k"), read_document, token)
        with pytest.raises(CancelledByCaller):
            caller.call(operations.get_object("b", "k"), read_document, token)
        assert len(server.requests) == 1


def test_an_error_of_the_consumer_is_not_retried() -> None:
    with ScriptedServer(handler=in_turn(response(200, b"x"))) as server, open_caller(server.endpoint) as caller:
        with pytest.raises(ZeroDivisionError):
            caller.call(operations.get_object("b", "k"), lambda answer: 1 // 0)
        assert get(caller) == b"x"
        assert (len(server.requests), server.accepted) == (2, 2)
