"""Sessions of directory buckets: within deadlines, by the server's clock, and with the permissions of the role."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate

import pytest

from s3torchconnector import S3ClientConfig, S3WriteOptions
from s3torchconnector._errors import S3AccessDeniedError, S3CredentialsError, S3Exception, S3TimeoutError
from s3torchconnector._wire import Caller, CancelToken, Request, operations, read_document
from s3torchconnector._wire._authenticator import Authenticator
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.scripted import Reply, ScriptedServer, Stall
from tests.wire.support import open_caller

pytestmark = pytest.mark.usefixtures("keys")
BUCKET = "train--usw2-az1--x-s3"
TIMEOUT = 0.3
THREADS = 40
GRACE = 10.0  # seconds that a loaded machine may take: less than one timeout after the other
OBJECT = operations.get_object(BUCKET, "k")


def timestamp(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def session(end: float, *, token: str = "session", date: float | None = None) -> bytes:
    fields = {"SessionToken": token, "SecretAccessKey": "s", "AccessKeyId": "A", "Expiration": timestamp(end)}
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in fields.items())
    headers = {} if date is None else {"Date": formatdate(date, usegmt=True)}
    document = f"<CreateSessionResult><Credentials>{inner}</Credentials></CreateSessionResult>"
    return response(200, document.encode(), headers)


def serving(create: Callable[[ReceivedRequest], Reply], body: bytes = b"body") -> ScriptedServer:
    """A server with this response to CreateSession, and the same content for every object."""
    return ScriptedServer(handler=lambda asked: create(asked) if "session" in asked.query else response(200, body))


def sessions_of(server: ScriptedServer) -> list[ReceivedRequest]:
    return [request for request in server.requests if "session" in request.query]


def fetch(caller: Caller) -> bytes:
    return caller.call(OBJECT, read_document)


def test_requests_that_wait_for_a_session_end_in_time() -> None:
    config = S3ClientConfig(operation_timeout=TIMEOUT)
    with serving(lambda _: [Stall(threading.Event())]) as server, open_caller(server.endpoint, config) as caller:
        with ThreadPoolExecutor(THREADS) as threads:
            began = time.perf_counter()
            errors = [future.exception() for future in [threads.submit(fetch, caller) for _ in range(THREADS)]]
            took = time.perf_counter() - began
        assert [type(error) for error in errors] == [S3TimeoutError] * THREADS
        assert took < GRACE < THREADS * TIMEOUT
        assert len(sessions_of(server)) <= 2


def test_sending_without_waiting_does_not_wait_for_a_session() -> None:
    release = threading.Event()
    with (
        serving(lambda _: [Stall(release)]) as server,
        open_caller(server.endpoint) as caller,
        ThreadPoolExecutor(1) as threads,
    ):
        begun = threads.submit(caller.send, OBJECT, CancelToken(), wait=False, connect=True)
        try:
            with pytest.raises(S3Exception, match="looked up first"):
                begun.result(10)
        finally:
            release.set()


@pytest.mark.parametrize("ahead", [-3600.0, 0.0, 4.6 * 60, 3600.0])
@pytest.mark.parametrize("dated", [True, False])
def test_one_session_serves_all_requests_with_any_clock(ahead: float, dated: bool) -> None:
    """Also if its end, 5 minutes after its creation, is in the past by the local clock."""

    def create(_: ReceivedRequest) -> bytes:
        server_time = time.time() - ahead
        return session(server_time + 300, date=server_time if dated else None)

    with serving(create) as server, open_caller(server.endpoint) as caller:
        assert [fetch(caller) for _ in range(5)] == [b"body"] * 5
        assert len(sessions_of(server)) == 1


def test_a_read_only_role_gets_a_read_only_session() -> None:
    def create(asked: ReceivedRequest) -> bytes:
        if asked.headers.get("x-amz-create-session-mode") != "ReadOnly":
            return s3_error(403, "AccessDenied")
        return session(time.time() + 300)

    with serving(create) as server, open_caller(server.endpoint) as caller:
        assert fetch(caller) == b"body"
        assert [asked.headers.get("x-amz-create-session-mode") for asked in sessions_of(server)] == [None, "ReadOnly"]


def test_a_session_is_created_with_the_encryption_of_writes() -> None:
    encryption = {"x-amz-server-side-encryption": "aws:kms", "x-amz-server-side-encryption-aws-kms-key-id": "key"}
    config = S3ClientConfig(write_options=S3WriteOptions(encryption="aws:kms", kms_key_id="key", acl="private"))
    with serving(lambda _: session(time.time() + 300)) as server, open_caller(server.endpoint, config) as caller:
        fetch(caller)
        [created] = sessions_of(server)
    assert {
        name: value for name, value in created.headers.items() if "encryption" in name or "acl" in name
    } == encryption


@pytest.mark.parametrize(
    "request_",
    [
        operations.copy_object(BUCKET, "k", BUCKET, "new"),
        operations.upload_part_copy(BUCKET, "k", '"etag"', (0, 9), BUCKET, "new", "upload", 1),
    ],
)
def test_copies_are_signed_with_the_keys_of_the_role(request_: Request) -> None:
    with serving(lambda _: session(time.time() + 300)) as server, open_caller(server.endpoint) as caller:
        caller.call(request_, read_document)
        assert sessions_of(server) == []
        [copied] = server.requests
        assert "x-amz-s3session-token" not in copied.headers
        assert "/s3express/aws4_request" in copied.headers["authorization"]


def test_without_any_session_the_first_reason_is_raised() -> None:
    with serving(lambda _: s3_error(403, "AccessDenied")) as server, open_caller(server.endpoint) as caller:
        with pytest.raises(S3AccessDeniedError, match=r"need s3express:CreateSession"):
            fetch(caller)
        assert len(sessions_of(server)) == 2


def test_keys_that_expired_are_renewed_for_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    def create(asked: ReceivedRequest) -> bytes:
        if "Credential=AKIASECOND/" in asked.headers["authorization"]:
            return session(time.time() + 300)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIASECOND")
        return s3_error(400, "ExpiredToken")

    with serving(create) as server, open_caller(server.endpoint) as caller:
        assert fetch(caller) == b"body"
        assert len(sessions_of(server)) == 2


def test_a_session_with_a_line_break_is_refused_unseen() -> None:
    with serving(lambda _: session(time.time() + 300, token="hush\nhush")) as server:
        with open_caller(server.endpoint) as caller, pytest.raises(S3CredentialsError, match="line break") as caught:
            fetch(caller)
        assert "hush" not in str(caught.value)


# -- renewal --------------------------------------------------------------------------------------------------------


class Giving:
    """Creates sessions of five minutes, when the test allows it.

    Attributes:
        asked: how many requests there were.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.may = threading.Event()
        self.may.set()

    def __call__(self, request: operations.Request) -> tuple[bytes, Mapping[str, str]]:
        self.asked += 1
        assert self.may.wait(20)
        document = session(1300.0, token=f"session-{self.asked}").partition(b"\r\n\r\n")[2]
        return document, {"date": formatdate(1000.0, usegmt=True)}


def test_threads_that_come_at_the_same_time_share_sessions() -> None:
    authenticator = Authenticator(S3ClientConfig(), "us-west-2", lambda request: (b"", {}))
    assert authenticator._new_sessions() is authenticator._new_sessions()


def test_a_session_is_replaced_while_requests_still_use_it() -> None:
    from s3torchconnector._wire._deadline import Deadline
    from s3torchconnector._wire._sessions import Sessions

    clock = [0.0]
    giving = Giving()
    sessions = Sessions(giving, lambda: 0.0, lambda: clock[0])

    def token(seconds: float) -> str | None:
        found = sessions.credentials(BUCKET, Deadline(CancelToken(), time.perf_counter() + seconds))
        return found and found.token

    assert sessions.credentials(BUCKET, None) is None
    assert token(20) == "session-1"
    clock[0] = 239.0
    assert token(20) == "session-1"
    assert giving.asked == 1
    giving.may.clear()
    clock[0] = 241.0
    assert [token(20) for _ in range(20)] == ["session-1"] * 20
    clock[0] = 296.0  # too late to sign with it
    with pytest.raises(S3TimeoutError, match="the session of the directory bucket"):
        token(0.01)
    assert giving.asked == 2
    giving.may.set()
    assert token(20) == "session-2"
