"""Set-ups in which one thing is broken: that is the only failure, and its fix names what to change."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from s3torchconnector import S3ClientConfig, S3Credentials
from s3torchconnector._doctor import Finding, Status
from s3torchconnector.testing import S3Server
from tests.doctor.support import Aws, checks_with, examined, failure_of
from tests.servers.forward_proxy import ForwardProxy
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.scripted import Reply, ScriptedServer, Stall
from tests.servers.silent import silent_port
from tests.servers.tls import PrivateCA

Refusal = Callable[[ReceivedRequest], bytes | None]
DENIED = s3_error(403, "AccessDenied", "Access Denied")


class Refusing(Aws):
    """A server that refuses some requests."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__()
        self._refusal = refusal

    def answer(self, request: ReceivedRequest, owner: str = "") -> bytes:
        refusal = self._refusal(request)
        if refusal is not None and request.method == "HEAD":
            return refusal.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        return refusal or super().answer(request, owner)


def refused(refusal: Refusal, **fields: object) -> tuple[dict[str, Finding], Refusing]:
    """The findings at a server that refuses so, and the server."""
    aws = Refusing(refusal)
    with aws.serve() as server:
        return examined(server.endpoint, **fields), aws


def responding(answer: Reply, **fields: object) -> dict[str, Finding]:
    """The findings at a server that always sends this."""
    with ScriptedServer(handler=lambda _: answer) as server:
        return examined(server.endpoint, **fields)


def check_named(found: dict[str, Finding], check: str, text: str, fix: str) -> None:
    """Check that this is the only failure, and that everything else was found well, or skipped because of it."""
    failure = failure_of(found)
    assert failure.check == check, failure
    assert text in failure.text, failure
    assert fix in failure.fix, failure
    reasons = {finding.text for finding in found.values() if finding.status is Status.SKIPPED}
    assert reasons <= {f"not tried, because of: {check}", "not tried: add --write to test it"}


# -- credentials -------------------------------------------------------------------------------------------------------


def test_an_unknown_access_key(s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAISNOTTHEKEYOFIT")
    check_named(examined(None, bucket), "keys", "HTTP 403", "in the environment")


def test_a_wrong_secret_key(s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "is-not-the-secret")
    check_named(examined(None, bucket), "keys", "SignatureDoesNotMatch", "correct the secret key in the environment")


def test_no_credentials_at_all(s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    found = examined(None, bucket, write=True)
    check_named(found, "credentials", "no AWS credentials found", "aws sso login")
    assert found["server"].status is Status.PASS


@pytest.mark.parametrize("source", ["environment", "function"])
def test_an_expired_token(keys: None, source: str) -> None:
    config = S3ClientConfig()
    if source == "function":  # the same keys are issued again
        config = S3ClientConfig(credentials=lambda: S3Credentials("AKIAIOSFODNN7EXAMPLE", "secret", "old-token"))
    found, _ = refused(lambda _: s3_error(400, "ExpiredToken", "The provided token has expired."), config=config)
    check_named(found, "keys", "expired", "renew the keys in")
    assert "AKIAIOSFODNN7EXAMPLE" not in failure_of(found).text


def test_a_profile_that_does_not_exist(keys: None) -> None:
    found = examined(None, config=S3ClientConfig(profile="no-such-profile"))
    check_named(found, "credentials", "no-such-profile", "--profile NAME")


@pytest.mark.parametrize("endpoint", ["ftp://127.0.0.1", "http://127.0.0.1:0"])
def test_an_endpoint_that_is_none(keys: None, endpoint: str) -> None:
    check_named(examined(endpoint), "endpoint", endpoint, "--endpoint-url")


# -- where and when ----------------------------------------------------------------------------------------------------


def _in_region(region: str, **told: str) -> Refusal:
    def refuse(request: ReceivedRequest) -> bytes | None:
        if f"/{region}/s3/" in request.headers.get("authorization", ""):
            return None
        return s3_error(400, "AuthorizationHeaderMalformed", "the region is wrong", **told)

    return refuse


def test_a_wrong_region_that_the_server_names(keys: None) -> None:
    found, _ = refused(_in_region("eu-west-1", Region="eu-west-1"), write=True)
    check_named(found, "region", "the bucket is in eu-west-1", "--region eu-west-1")
    assert found["delete"].status is Status.PASS  # requests follow it


def test_a_wrong_region_that_the_server_does_not_name(keys: None) -> None:
    found, _ = refused(_in_region("eu-west-1"))
    check_named(found, "region", "refuses region us-east-1", "get-bucket-location")


def test_a_wrong_clock(keys: None) -> None:
    ahead = 3600

    def refuse(request: ReceivedRequest) -> bytes | None:
        sent = time.strftime("%Y%m%dT%H%M", time.gmtime(time.time() + ahead))
        if request.headers["x-amz-date"][:11] == sent[:11]:  # the hour; a minute may pass meanwhile
            return None
        return s3_error(403, "RequestTimeTooSkewed", "The difference is too large")

    aws = Refusing(lambda _: None)
    aws.now = int(time.time()) + ahead

    def answer(request: ReceivedRequest) -> bytes:
        refusal = refuse(request)
        return aws.answer(request) if refusal is None else with_date(refusal, time.time() + ahead)

    with ScriptedServer(handler=answer) as server:
        found = examined(server.endpoint, write=True)
    check_named(found, "clock", "60 minutes behind the server's", "timedatectl")
    assert found["delete"].status is Status.PASS  # the client corrects it


@pytest.mark.parametrize(
    ("minutes", "status"),
    [(-20, Status.FAILURE), (20, Status.FAILURE), (10, Status.WARNING), (2, Status.PASS), (0, Status.PASS)],
)
def test_a_clock_that_differs_from_a_patient_servers(keys: None, minutes: int, status: Status) -> None:
    aws = Aws()
    aws.now += 60 * minutes
    with aws.serve() as server:
        found = examined(server.endpoint)
    assert found["clock"].status is status
    assert checks_with(found, Status.FAILURE) <= {"clock"}


def test_a_wrong_clock_of_a_server_without_a_date_header(keys: None) -> None:
    found = responding(s3_error(403, "RequestTimeTooSkewed", "The difference is too large"))
    check_named(found, "clock", "differs from the server's", "timedatectl")
    assert found["keys"].status is Status.SKIPPED


def with_date(answer: bytes, moment: float) -> bytes:
    head, _, body = answer.partition(b"\r\n\r\n")
    return head + f"\r\ndate: {time.strftime('%a, %d %b %Y %T GMT', time.gmtime(moment))}\r\n\r\n".encode() + body


def test_a_bucket_that_does_not_exist(s3_server: S3Server) -> None:
    found = examined(None, "there-is-none", write=True)
    check_named(found, "bucket", "there is no bucket 'there-is-none'", "s3torch mb s3://there-is-none --region ")


# -- permissions -------------------------------------------------------------------------------------------------------


def _is_listing(request: ReceivedRequest) -> bool:
    return request.query.get("list-type") == "2"


def test_no_permission_to_list(keys: None) -> None:
    found, aws = refused(lambda request: DENIED if _is_listing(request) else None, write=True)
    check_named_alone(found, "list", "s3:ListBucket on arn:aws:s3:::bucket ")
    assert found["get"].status is found["head"].status is found["delete"].status is Status.PASS
    assert found["start-after"].text == "not tried, because of: list"
    assert sorted(aws.objects) == ["data/0", "data/1", "data/2"]


def check_named_alone(found: dict[str, Finding], check: str, fix: str) -> None:
    failure = failure_of(found)
    assert failure.check == check, failure
    assert "HTTP 403 AccessDenied: Access Denied" in failure.text
    assert fix in failure.fix, failure


def test_a_key_can_be_named_if_listing_is_denied(keys: None) -> None:
    found, _ = refused(lambda request: DENIED if _is_listing(request) else None, prefix="data/1")
    check_named_alone(found, "list", "from_objects")
    assert "'data/1'" in found["get"].text


def test_an_object_that_may_be_missing_is_said_to_be_so(keys: None) -> None:
    found, _ = refused(lambda _: DENIED, prefix="data/unknown")
    assert checks_with(found, Status.FAILURE) == {"list", "get"}
    assert "name an object that exists" in found["get"].fix


def test_no_permission_to_read(keys: None) -> None:
    found, _ = refused(
        lambda request: DENIED if request.method in ("GET", "HEAD") and request.path.count("/") > 1 else None
    )
    check_named_alone(found, "get", "s3:GetObject on arn:aws:s3:::bucket/data/*")


def test_a_gateway_that_forbids_head_is_a_warning(keys: None) -> None:
    found, _ = refused(lambda request: DENIED if request.method == "HEAD" else None)
    assert checks_with(found, Status.WARNING) == {"head"}
    assert checks_with(found, Status.FAILURE) == set()


def test_a_bucket_that_can_only_be_read(keys: None) -> None:
    found, aws = refused(lambda request: DENIED if request.method not in ("GET", "HEAD") else None, write=True)
    check_named(found, "put", "AccessDenied", "s3:PutObject on arn:aws:s3:::bucket/data/*")
    assert {"multipart", "abort", "delete", "copy"} <= checks_with(found, Status.SKIPPED)
    assert not aws.uploads


def test_no_permission_to_abort(keys: None) -> None:
    def refuse(request: ReceivedRequest) -> bytes | None:
        return DENIED if request.method == "DELETE" and "uploadId" in request.query else None

    found, aws = refused(refuse, write=True)
    failures = [found[check] for check in checks_with(found, Status.FAILURE)]
    assert {failure.check for failure in failures} == {"abort", "scratch"}  # the upload stays, and is named
    assert "s3:AbortMultipartUpload on arn:aws:s3:::bucket/data/*" in found["abort"].fix
    [upload] = aws.uploads
    assert f"aws s3api abort-multipart-upload --bucket bucket --key {aws.uploads[upload].key} " in found["scratch"].fix
    assert f" --upload-id {upload} " in found["scratch"].fix


def test_uploads_are_named_also_if_nothing_can_be_deleted(keys: None) -> None:
    found, aws = refused(lambda request: DENIED if request.method == "DELETE" else None, write=True)
    assert checks_with(found, Status.FAILURE) == {"abort", "delete", "scratch"}
    assert all(upload in found["scratch"].fix for upload in aws.uploads)


def test_no_permission_to_delete_names_what_is_left(keys: None) -> None:
    found, aws = refused(
        lambda request: DENIED if request.method == "DELETE" and not request.query else None, write=True
    )
    check_named_alone(found, "delete", "s3:DeleteObject on arn:aws:s3:::bucket/data/*")
    [left, *_] = [key for key in aws.objects if "doctor" in key]
    assert f"s3://bucket/{left.rpartition('/')[0]}/" in found["delete"].fix


def test_a_key_of_kms_that_may_not_be_used(keys: None) -> None:
    message = "User is not authorized to perform: kms:Decrypt on this resource"
    refusal = s3_error(403, "AccessDenied", message)
    found, _ = refused(lambda request: refusal if request.path.startswith("/bucket/data/") else None)
    check_named(found, "get", message, "kms:Decrypt")


@pytest.mark.parametrize(
    ("status", "code", "message", "fix"),
    [
        (403, "InvalidObjectState", "not valid for the object's access tier", "skip_archived"),
        (400, "InvalidRequest", "The object was stored using a form of Server Side Encryption.", "customer_key"),
    ],
)
def test_an_object_that_cannot_be_read_because_of_its_state(
    keys: None, status: int, code: str, message: str, fix: str
) -> None:
    refusal = s3_error(status, code, message)
    found, _ = refused(lambda request: refusal if request.path.startswith("/bucket/data/") else None)
    check_named(found, "get", message.partition("'")[0].rstrip("."), fix)
    assert found["get"].text[-1] != "."  # another follows, and then the fix


def test_a_quota_that_is_used_up(keys: None) -> None:
    full = s3_error(403, "QuotaExceeded", "The quota is used up")
    found, _ = refused(lambda request: full if request.method == "PUT" else None, write=True)
    check_named(found, "put", "QuotaExceeded", "quota")


# -- connections -------------------------------------------------------------------------------------------------------


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_proxy_that_is_down(keys: None, closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, scheme in (("HTTP_PROXY", "http"), ("HTTPS_PROXY", "https")):
        monkeypatch.setenv(variable, f"http://user:pass-of-proxy@127.0.0.1:{closed_port}")
        found = examined(f"{scheme}://s3.example.com")
        check_named(found, "proxy", f"127.0.0.1:{closed_port} ({variable})", variable)
        assert "pass-of-proxy" not in str(found)
        monkeypatch.delenv(variable)


def test_a_proxy_that_wants_other_credentials(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with ForwardProxy("user:right") as proxy, Aws().serve() as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.endpoint)
        monkeypatch.setenv("HTTPS_PROXY", proxy.endpoint)
        tunnelled = examined("https://s3.example.com")
        check_named(tunnelled, "proxy", "407", "user:password@host")
        found = {finding.check: finding for finding in forwarded(server.endpoint)}
        check_named(found, "proxy", "407", "user:password@host")


def forwarded(endpoint: str) -> Iterator[Finding]:
    """The findings. Of two about the proxy, the later one counts: that responds to requests, and does not forward."""
    from s3torchconnector._doctor import Target, examine

    return examine(Target("bucket", endpoint=endpoint, seconds=0.0, step_seconds=2.0))


def test_a_proxy_that_is_silent(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer([[Stall(threading.Event())]] * 4) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.endpoint)
        found = examined("https://s3.example.com", step_seconds=0.5)
    check_named(found, "proxy", "does not lead to the endpoint", "HTTPS_PROXY")


def test_a_proxy_that_does_not_speak_tls(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with ForwardProxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.endpoint.replace("http://", "https://"))
        found = examined("https://s3.example.com", step_seconds=0.5)
    check_named(found, "proxy", "cannot be used", "HTTPS_PROXY")


def test_a_proxy_that_works_is_gone_through(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with ForwardProxy() as proxy, Aws().serve() as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.endpoint)
        found = examined(server.endpoint)
        assert proxy.requests
    assert checks_with(found, Status.FAILURE) == set()
    assert "(HTTP_PROXY)" in found["proxy"].text


def test_a_private_ca(s3_server_tls: S3Server, private_ca: PrivateCA, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    found = examined(None, "tls-bucket")
    check_named(found, "tls", "is not trusted by the system's trust store", "export AWS_CA_BUNDLE=")
    monkeypatch.setenv("AWS_CA_BUNDLE", "/no/such/file.pem")
    check_named(examined(None, "tls-bucket"), "tls", "/no/such/file.pem", "export AWS_CA_BUNDLE=")


def test_a_private_ca_after_a_proxy(s3_server_tls: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with ForwardProxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.endpoint)
        check_named(examined(None, "tls-bucket"), "tls", "is not trusted", "export AWS_CA_BUNDLE=")


def test_http_at_a_port_of_https(s3_server_tls: S3Server, private_ca: PrivateCA) -> None:
    plain = s3_server_tls.endpoint.replace("https://", "http://")
    check_named(examined(plain), "server", "speaks TLS", f"--endpoint-url {s3_server_tls.endpoint}")
    with ScriptedServer(tls=private_ca.server_context) as server:  # which closes the connection
        plain = server.endpoint.replace("https://", "http://")
        check_named(examined(plain), "server", "speaks TLS", f"--endpoint-url {server.endpoint}")


def test_https_at_a_port_of_http(s3_server: S3Server) -> None:
    encrypted = s3_server.endpoint.replace("http://", "https://")
    check_named(examined(encrypted), "tls", "HTTP without TLS", f"--endpoint-url {s3_server.endpoint}")


def test_a_port_that_is_closed(keys: None, closed_port: int) -> None:
    found = examined(f"http://127.0.0.1:{closed_port}")
    check_named(found, "connection", "refuses connections", "start the server")


def test_a_firewall_that_drops_packets(keys: None) -> None:
    with silent_port() as port:
        found = examined(f"http://127.0.0.1:{port}", step_seconds=0.5)
    check_named(found, "connection", "does not respond to connections within 0.5 s", "firewall")


def test_a_name_that_does_not_exist(keys: None) -> None:
    found = examined("http://nowhere.invalid:9000", config=S3ClientConfig(force_path_style=True))
    check_named(found, "dns", "nowhere.invalid has no address", "getent hosts nowhere.invalid")
    found = examined("http://nowhere.invalid:9000")
    check_named(found, "dns", "bucket.nowhere.invalid has no address", "--path-style")


# -- what responds -----------------------------------------------------------------------------------------------------

PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Welcome</body></html>"
HTML = {"content-type": "text/html; charset=utf-8"}


@pytest.mark.parametrize(
    "answer",
    [
        response(200, PAGE, HTML),  # the console of a server
        response(404, PAGE, HTML),  # any web server
        response(200, b"<html><head><title>Sign in</title></head></html>", HTML),  # which is well-formed XML
        response(302, PAGE, {**HTML, "location": "http://login.example/"}),  # a captive portal
    ],
)
def test_a_server_that_is_not_s3(keys: None, answer: bytes) -> None:
    check_named(responding(answer), "server", "text/html with the title 'Sign in'", "--endpoint-url")


def test_what_speaks_no_http(keys: None) -> None:
    check_named(responding(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "server", "is not an S3 server", "--endpoint-url")


def test_a_gateway_without_a_server(keys: None) -> None:
    check_named(responding(response(503, b"no healthy upstream")), "server", "no document of S3", "--endpoint-url")


def test_a_server_that_is_silent(keys: None) -> None:
    began = time.perf_counter()
    found = responding([Stall(threading.Event())], step_seconds=0.5)
    check_named(found, "server", "sends no response within 0.5 s", "restart the server")
    assert time.perf_counter() - began < 12 * 0.5 + 5.0


def test_a_server_that_becomes_silent(keys: None) -> None:
    aws, silence = Aws(), threading.Event()

    def answer(request: ReceivedRequest) -> Reply:
        return [Stall(silence)] if request.method == "HEAD" else aws.answer(request)

    with ScriptedServer(handler=answer) as server:
        found = examined(server.endpoint, step_seconds=0.5)
    check_named(found, "head", "silent", "Troubleshooting")
    assert found["ranges"].status is Status.SKIPPED


def test_a_server_that_is_slow(keys: None) -> None:
    aws = Aws()

    def answer(request: ReceivedRequest) -> Reply:
        threading.Event().wait(0.05)  # each response takes so long
        return aws.answer(request)

    with ScriptedServer(handler=answer) as server:
        found = examined(server.endpoint, write=True, total_seconds=0.4)
    check_named(found, "time", "the server is slow", "nearer")
    assert sorted(aws.objects) == ["data/0", "data/1", "data/2"]


def test_throttling(keys: None) -> None:
    found, _ = refused(lambda _: s3_error(503, "SlowDown", "Please reduce your request rate."))
    check_named(found, "throttling", "SlowDown", "lower max_connections")


def test_throttling_of_writes(keys: None) -> None:
    busy = s3_error(503, "SlowDown", "Please reduce your request rate.")
    found, aws = refused(lambda request: busy if request.method == "POST" else None, write=True)
    check_named(found, "throttling", "SlowDown", "lower max_connections")
    assert sorted(aws.objects) == ["data/0", "data/1", "data/2"]


def test_one_response_that_is_lost_is_no_failure(keys: None) -> None:
    lost = iter([s3_error(500, "InternalError"), None, s3_error(503, "SlowDown")])
    found, _ = refused(lambda request: next(lost, None))
    assert checks_with(found, Status.FAILURE) == set()
    assert checks_with(found, Status.WARNING) == {"retries"}
    assert found["retries"].text.startswith("2 of 9 requests had to be sent again")


def test_a_gateway_that_ignores_ranges(keys: None) -> None:
    aws = Aws()

    def answer(request: ReceivedRequest) -> bytes:
        request.headers.pop("range", None)
        return aws.answer(request)

    with ScriptedServer(handler=answer) as server:
        check_named(examined(server.endpoint), "ranges", "ignores ranges", "gateway or cache")


def test_what_a_server_says_is_one_line_without_keys(keys: None) -> None:
    message = "key AKIAFIRSTKEYOFTEST\r\nwith secret-of-the-test \x1b[2J" + "and more " * 200
    found, _ = refused(lambda _: s3_error(403, "InvalidAccessKeyId", message.replace("\x1b", "&#27;")))
    failure = failure_of(found)
    assert "AKIA...TEST" in failure.text
    assert "secret-of-the-test" not in failure.text
    assert failure.text.isprintable()
    assert len(failure.text) < 500
