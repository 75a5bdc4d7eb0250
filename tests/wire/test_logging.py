"""The log: one line a request, the reasons of retries, and never a secret."""

from __future__ import annotations

import logging
import pickle
import re

import pytest

from s3torchconnector import S3ClientConfig
from s3torchconnector._errors import S3Exception
from s3torchconnector.testing import S3Server
from tests.servers.http_messages import response, s3_error
from tests.servers.proxy import RecordingProxy, Replace, first
from tests.servers.scripted import ScriptedServer
from tests.wire.support import ACCESS_KEY, SECRET, TOKEN, get, in_turn, open_caller, open_client

LINE = re.compile(
    r"(?P<operation>\w+) s3://(?P<bucket>[^/ ]+)(/(?P<key>\S+))? range=(?P<range>\S+) status=(?P<status>\d+) "
    r"bytes=(?P<bytes>\d+) ms=(?P<ms>\d+\.\d) attempt=(?P<attempt>\d+) request_id=(?P<id>\S+)"
)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


def lines(log: pytest.LogCaptureFixture) -> list[dict[str, str]]:
    """The request lines of the log, as their fields."""
    found = [LINE.fullmatch(record.getMessage()) for record in log.records if record.levelno == logging.DEBUG]
    return [match.groupdict() for match in found if match]


def test_one_debug_line_a_request(s3_server: S3Server, bucket: str, log: pytest.LogCaptureFixture) -> None:
    with open_client(s3_server.endpoint) as client:
        stream = client.put_object(bucket, "k")
        stream.write(b"12345")
        stream.close()
        client.get_object(bucket, "k").read()
        client.head_object(bucket, "k")
        list(client.list_objects(bucket))
        client.delete_object(bucket, "k")
    told = lines(log)
    assert [line["operation"] for line in told] == [
        "PutObject",
        "GetObject",
        "HeadObject",
        "ListObjectsV2",
        "DeleteObject",
    ]
    assert {line["bucket"] for line in told} == {bucket}
    assert [line["key"] for line in told] == ["k", "k", "k", None, "k"]
    assert [line["status"] for line in told] == ["200", "200", "200", "200", "204"]  # 200: the range is the whole
    assert [line["bytes"] for line in told[:3]] == ["5", "5", "0"]
    assert [line["range"] for line in told[:3]] == ["-", "bytes=0-8388607", "-"]
    assert {line["attempt"] for line in told} == {"1"}
    assert {record.name.split(".")[0] for record in log.records} == {"s3torchconnector"}


@pytest.mark.usefixtures("keys")
def test_request_id_and_attempt_are_logged(log: pytest.LogCaptureFixture) -> None:
    good = response(200, b"x", {"x-amz-request-id": "ID7"})
    with (
        ScriptedServer(handler=in_turn(s3_error(503, "SlowDown"), good)) as server,
        open_caller(server.endpoint) as caller,
    ):
        get(caller)
    assert [(line["attempt"], line["id"]) for line in lines(log)] == [("2", "ID7")]
    refused = [record.getMessage() for record in log.records if "SlowDown" in record.getMessage()]
    assert any("503" in text and "TEST" in text for text in refused)


def test_a_retry_is_logged_at_info_with_its_reason(
    proxy: RecordingProxy, bucket: str, log: pytest.LogCaptureFixture
) -> None:
    proxy.misbehave = first(1, Replace(s3_error(503, "SlowDown", "Reduce your request rate.")))
    with open_client(proxy.endpoint) as client:
        list(client.list_objects(bucket))
    told = [record.getMessage() for record in log.records if record.levelno == logging.INFO]
    assert len(told) == 1
    assert re.search(rf"ListObjectsV2 s3://{bucket} failed .*SlowDown: Reduce your request rate.*attempt 2", told[0])


@pytest.mark.usefixtures("keys")
def test_a_failure_that_passes_logs_no_warning(log: pytest.LogCaptureFixture) -> None:
    answers = in_turn(s3_error(500, "InternalError"), response(200, b"x"))
    with ScriptedServer(handler=answers) as server, open_caller(server.endpoint) as caller:
        get(caller)
    assert max(record.levelno for record in log.records) == logging.INFO


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize("key", ["a\nFAKE", "a\r\nFAKE", "a\x1b[31mb", "a\u2028b", "a\0b"])
def test_a_key_forges_no_line_in_logs_or_errors(key: str, log: pytest.LogCaptureFixture) -> None:
    answers = in_turn(response(200, b"x"), s3_error(503, "SlowDown"), s3_error(403, "AccessDenied"))
    with ScriptedServer(handler=answers) as server, open_caller(server.endpoint) as caller:
        get(caller, key)
        with pytest.raises(PermissionError) as caught:
            get(caller, key)
    texts = [record.getMessage() for record in log.records] + [str(caught.value)]
    assert len(texts) >= 4
    assert [text for text in texts if not text.isprintable()] == []


@pytest.mark.usefixtures("keys")
def test_a_servers_message_forges_no_line_in_logs_or_errors(log: pytest.LogCaptureFixture) -> None:
    answers = in_turn(s3_error(503, "Slow\nFAKE", "m\nFAKE"), s3_error(403, "Denied\nFAKE", "m\r\nFAKE"))
    with (
        ScriptedServer(handler=answers) as server,
        open_caller(server.endpoint) as caller,
        pytest.raises(PermissionError) as caught,
    ):
        get(caller)
    texts = [record.getMessage() for record in log.records] + [str(caught.value)]
    assert [text for text in texts if not text.isprintable()] == []


@pytest.mark.usefixtures("keys")
def test_no_secret_is_ever_shown(log: pytest.LogCaptureFixture) -> None:
    """After a success, a retry, an expiry and a refusal: not in records, exceptions, ``repr``, pickles."""
    answers = in_turn(
        response(200, b"x", {"ETag": '"e"'}), s3_error(503, "SlowDown"), s3_error(400, "ExpiredToken"),
    )  # fmt: skip
    with ScriptedServer(handler=answers) as server:
        with open_client(server.endpoint, S3ClientConfig(max_attempts=2, requester_pays=True)) as client:
            client.get_object("b", "k").read()
            with pytest.raises(S3Exception, match="renew them") as caught:
                client.get_object("b", "k").read()
            runtime = client._runtime()
            identity = runtime.caller._authenticator._provider.get()
            stream = client.put_object("b", "k")
            shown = [
                client,
                runtime,
                runtime.caller,
                client.get_object("b", "k"),
                stream,
                identity,
                client.s3client_config,
            ]
            texts = [repr(each) + str(each) for each in shown]
            stream.abort()
            texts.append(pickle.dumps(client, 0).decode("latin-1"))
        signatures = [request.headers["authorization"].partition("Signature=")[2] for request in server.requests]
    texts += [record.getMessage() + str(record.__dict__) for record in log.records]
    error: BaseException | None = caught.value
    while error is not None:
        texts.append(f"{error!r} {error} {vars(error)}")
        error = error.__context__
    everything = "\n".join(texts)
    assert "ExpiredToken" in everything  # so the search looks where it should
    assert SECRET not in everything
    assert TOKEN not in everything
    assert not any(signature in everything for signature in signatures)
    assert ACCESS_KEY in everything  # errors should name the refused key
