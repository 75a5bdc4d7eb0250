"""One call: its connection, its headers, its region, and the causes of refusals that it removes."""

from __future__ import annotations

import socket
import time
from email.utils import formatdate

import pytest

from s3torchconnector import S3ClientConfig
from s3torchconnector._errors import S3ConnectionError, S3ServiceError, S3TimeoutError, S3WrongRegionError
from s3torchconnector._wire import operations, read_document
from s3torchconnector._wire._caller import Caller
from s3torchconnector._wire._retry import RetryPolicy, RetryQuota, RetryRule
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.scripted import Close, Receive, Reply, Reset, ScriptedServer, Send
from tests.servers.tcp import TcpServer
from tests.wire.support import ACCESS_KEY, REGION, get, in_turn, open_caller, open_client

pytestmark = pytest.mark.usefixtures("keys")
GOOD = response(200, b"body")
NEVER = RetryRule(RetryPolicy(max_attempts=1), RetryQuota())
"""A rule with which any failure that counts is raised at once."""


# -- connections ----------------------------------------------------------------------------------------------------


def test_connection_is_kept_for_the_next_request() -> None:
    with ScriptedServer(handler=in_turn(GOOD)) as server, open_caller(server.endpoint) as caller:
        assert [get(caller) for _ in range(5)] == [b"body"] * 5
        assert server.accepted == 1


@pytest.mark.parametrize(
    "answer",
    [
        response(200, b"body", {"Connection": "close"}),
        GOOD.replace(b"HTTP/1.1", b"HTTP/1.0"),
        b"HTTP/1.1 200 OK\r\n\r\nbody",
        GOOD + b"and more",
    ],
    ids=["Connection: close", "HTTP/1.0", "ends with the connection", "bytes after the body"],
)
def test_a_connection_that_cannot_be_reused_is_closed(answer: bytes) -> None:
    with ScriptedServer(handler=lambda request: [Send(answer), Close()]) as server:
        with open_caller(server.endpoint) as caller:
            assert [get(caller), get(caller)] == [b"body", b"body"]
        assert (server.accepted, len(server.requests)) == (2, 2)


@pytest.mark.parametrize("end", [Close(), Reset()], ids=["FIN", "RST"])
def test_a_stale_connection_is_replaced_within_the_attempt(end: Close | Reset) -> None:
    # The server takes the second request on the kept connection, and ends it without a response.
    script = [[Receive(), Send(GOOD), Receive(), end], [Receive(), Send(GOOD)]]
    with ScriptedServer(script) as server:
        caller = Caller(REGION, server.endpoint, S3ClientConfig(), "test/1", NEVER)
        assert [get(caller), get(caller)] == [b"body", b"body"]
        caller.close()
        assert (server.accepted, len(server.requests)) == (2, 3)


def test_a_new_connection_without_a_response_is_a_failure() -> None:
    with ScriptedServer([[Receive(), Close()]]) as server:
        caller = Caller(REGION, server.endpoint, S3ClientConfig(), "test/1", NEVER)
        with pytest.raises(S3ConnectionError, match="closed the connection without a response") as caught:
            get(caller)
        caller.close()
        assert caught.value.attempts == 1


def test_no_process_listens() -> None:
    with ScriptedServer() as server:
        endpoint = server.endpoint
    with (
        open_caller(endpoint) as caller,
        pytest.raises(ConnectionError, match="Is the endpoint right, and is the server"),
    ):
        get(caller)


class Silent(TcpServer):
    """Receives, and never sends anything."""

    def serve(self, connection: socket.socket, number: int) -> None:
        while connection.recv(1 << 20):
            pass


def test_silent_server_is_a_timeout() -> None:
    config = S3ClientConfig(max_attempts=2, read_timeout=0.05)
    with (
        Silent() as server,
        open_caller(server.endpoint, config) as caller,
        pytest.raises(S3TimeoutError, match=r"silent for 0.05 s.*\(after 2 attempts\)"),
    ):
        get(caller)


def test_silence_is_not_waited_for_twice() -> None:
    config = S3ClientConfig(max_attempts=1, read_timeout=2.0)
    with Silent() as server, open_caller(server.endpoint, config) as caller:
        began = time.perf_counter()
        with pytest.raises(S3TimeoutError, match=r"silent for 2 s while waiting for the response"):
            get(caller)
        assert 2.0 <= time.perf_counter() - began < 4.0


class Refusing(TcpServer):
    """Reads a little of each request, refuses it and closes the connection."""

    def serve(self, connection: socket.socket, number: int) -> None:
        connection.recv(500)
        connection.sendall(s3_error(400, "EntityTooLarge"))


@pytest.mark.parametrize("operation", ["PutObject", "UploadPart"])
def test_an_early_refusal_is_raised_while_the_body_is_sent(operation: str) -> None:
    body = [bytes(64 << 20)]
    whole, part = operations.put_object("b", "k", body), operations.upload_part("b", "k", "id", 1, body)
    with Refusing() as server, open_caller(server.endpoint) as caller:
        with pytest.raises(S3ServiceError, match=r"EntityTooLarge.*lower part_size") as caught:
            caller.call(whole if operation == "PutObject" else part, read_document)
        assert (caught.value.operation, caught.value.status) == (operation, 400)
        assert (caught.value.attempts, server.accepted) == (1, 1)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + GOOD,
        response(200, b"4\r\nbody\r\n0\r\n\r\n", {"Transfer-Encoding": "chunked"}),
        response(200, b"1\r\nb\r\n3;x=y\r\nody\r\n0\r\nTrailer: z\r\n\r\n", {"Transfer-Encoding": "chunked"}),
    ],
    ids=["interim responses", "chunked", "chunks with extras"],
)
def test_shapes_of_good_responses_byte_by_byte(answer: bytes) -> None:
    with ScriptedServer(handler=lambda request: [Send(answer, size=1)]) as server:
        with open_caller(server.endpoint) as caller:
            assert [get(caller), get(caller)] == [b"body", b"body"]
        assert server.accepted == 1


# -- headers --------------------------------------------------------------------------------------------------------


def test_unsigned_caller_sends_no_authorization() -> None:
    config = S3ClientConfig(unsigned=True)
    with ScriptedServer(handler=in_turn(GOOD)) as server, open_caller(server.endpoint, config) as caller:
        get(caller)
        assert not {"authorization", "x-amz-security-token", "x-amz-date"} & set(server.requests[0].headers)


def test_requester_pays_and_user_agent_are_sent() -> None:
    config = S3ClientConfig(requester_pays=True)
    with ScriptedServer(handler=in_turn(GOOD)) as server, open_client(server.endpoint, config) as client:
        client.delete_object("b", "k")
        headers = server.requests[0].headers
    assert headers["x-amz-request-payer"] == "requester"
    assert headers["user-agent"] == client.user_agent
    assert headers["user-agent"].startswith("s3torchconnector/2.")


# -- clocks ---------------------------------------------------------------------------------------------------------


def test_a_skewed_clock_is_corrected_once_and_remembered() -> None:
    server_time = formatdate(366 * 86400.0, usegmt=True)
    skewed = s3_error(403, "RequestTimeTooSkewed").replace(b"\r\n", f"\r\nDate: {server_time}\r\n".encode(), 1)

    def answer(request: ReceivedRequest) -> bytes:
        return GOOD if request.headers["x-amz-date"].startswith("19710102") else skewed

    with ScriptedServer(handler=answer) as server, open_caller(server.endpoint) as caller:
        caller._authenticator._clock = lambda: 86400.0  # a day after 1970 began; the server is a year ahead
        assert [get(caller), get(caller)] == [b"body", b"body"]
        dates = [each.headers["x-amz-date"][:8] for each in server.requests]
    assert dates == ["19700102", "19710102", "19710102"]


def test_clock_that_is_refused_again_is_an_error() -> None:
    with ScriptedServer(handler=in_turn(s3_error(403, "RequestTimeTooSkewed"))) as server:
        with open_caller(server.endpoint) as caller, pytest.raises(S3ServiceError, match="clock is wrong"):
            get(caller)
        assert len(server.requests) == 2


# -- regions --------------------------------------------------------------------------------------------------------


def region_of(request: ReceivedRequest) -> str:
    return request.headers["authorization"].split("/")[2]


def redirecting(to: str, kind: str) -> bytes:
    if kind == "redirect":
        return s3_error(301, "PermanentRedirect").replace(b"\r\n", f"\r\nx-amz-bucket-region: {to}\r\n".encode(), 1)
    if kind == "document":
        return s3_error(400, "AuthorizationHeaderMalformed", Region=to)
    return response(int(kind.split()[1]), headers={"x-amz-bucket-region": to})


@pytest.mark.parametrize("kind", ["redirect", "document", "HEAD 301", "HEAD 400"])
def test_bucket_in_another_region_is_followed_and_remembered(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "s3torchconnector")

    def answer(request: ReceivedRequest) -> bytes:
        return redirecting("eu-west-1", kind) if region_of(request) == REGION else response(200)

    request = operations.head_object("b", "k") if kind.startswith("HEAD") else operations.get_object("b", "k")
    with ScriptedServer(handler=answer) as server, open_caller(server.endpoint) as caller:
        for _ in range(2):
            caller.call(request, read_document)
        assert [region_of(each) for each in server.requests] == [REGION, "eu-west-1", "eu-west-1"]
    assert ["s3://b is in region eu-west-1" in record.getMessage() for record in caplog.records] == [True]


def test_a_redirect_is_followed_once_then_the_region_is_named() -> None:
    with ScriptedServer(handler=in_turn(redirecting("eu-west-1", "redirect"))) as server:
        with (
            open_caller(server.endpoint) as caller,
            pytest.raises(S3WrongRegionError, match="region='eu-west-1'") as caught,
        ):
            get(caller)
        assert len(server.requests) == 2
    assert (caught.value.region, caught.value.status, caught.value.code) == ("eu-west-1", 301, "PermanentRedirect")


def test_an_unnamed_region_cannot_be_followed() -> None:
    with (
        ScriptedServer(handler=in_turn(s3_error(301, "PermanentRedirect"))) as server,
        open_caller(server.endpoint) as caller,
    ):
        with pytest.raises(S3WrongRegionError, match="another region") as caught:
            get(caller)
        assert (len(server.requests), caught.value.region) == (1, None)


def test_other_redirects_are_errors() -> None:
    answer = response(302, headers={"Location": "http://elsewhere/"})
    with ScriptedServer(handler=in_turn(answer)) as server, open_caller(server.endpoint) as caller:
        with pytest.raises(S3ServiceError, match="HTTP 302") as caught:
            get(caller)
        assert (caught.value.status, len(server.requests)) == (302, 1)


# -- credentials ----------------------------------------------------------------------------------------------------


def test_only_expired_keys_are_refreshed() -> None:
    answer: Reply = s3_error(403, "AccessDenied")
    with ScriptedServer(handler=in_turn(answer)) as server, open_caller(server.endpoint) as caller:
        with pytest.raises(PermissionError, match="s3:GetObject"):
            get(caller)
        assert [ACCESS_KEY in each.headers["authorization"] for each in server.requests] == [True]
