"""Credentials that expire during a transfer are looked up again, once, and the transfer goes on."""

from __future__ import annotations

import os
import random
import sys
import threading
from pathlib import Path

import pytest

from s3torchconnector import S3ClientConfig
from s3torchconnector._errors import S3AccessDeniedError, S3CredentialsError, S3ServiceError
from s3torchconnector.testing import S3Server
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.proxy import Fault, RecordingProxy, Replace
from tests.servers.scripted import ScriptedServer
from tests.wire.support import get, in_turn, open_caller, open_client

MIB = 1 << 20
EXPIRED = s3_error(400, "ExpiredToken", "The provided token has expired.")
# Expiry is no failed attempt: there is only one attempt here.
ONE_ATTEMPT = S3ClientConfig(max_attempts=1, part_size=5 * MIB)


class Issuer:
    """A credential process: prints the server's keys with a new token each time, and counts.

    Only ``uses`` requests with the first token are accepted; later ones are refused as expired.
    """

    def __init__(self, folder: Path, server: S3Server, uses: int) -> None:
        self._tokens = folder / "tokens"
        self._left = uses
        self._lock = threading.Lock()
        self.refused = 0
        script = folder / "issue.py"
        keys = {"Version": 1, "AccessKeyId": server.access_key, "SecretAccessKey": server.secret_key}
        script.write_text(
            "import json, pathlib\n"
            f"file = pathlib.Path({str(self._tokens)!r})\n"
            "tokens = file.read_text() if file.exists() else ''\n"
            "file.write_text(tokens + 'x')\n"
            f"print(json.dumps({keys!r} | {{'SessionToken': f'token-{{len(tokens)}}'}}))\n"
        )
        self.config = folder / "config"
        self.config.write_text(f"[default]\ncredential_process = {sys.executable} {script}\n")

    @property
    def issued(self) -> int:
        return len(self._tokens.read_text())

    def judge(self, request: ReceivedRequest) -> Fault | None:
        with self._lock:
            if request.headers["x-amz-security-token"] != "token-0":
                return None
            self._left -= 1
            if self._left >= 0:
                return None
            self.refused += 1
            return Replace(EXPIRED if request.method != "HEAD" else b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.fixture
def issuer(tmp_path: Path, s3_server: S3Server, proxy: RecordingProxy, monkeypatch: pytest.MonkeyPatch) -> Issuer:
    issuer = Issuer(tmp_path, s3_server, uses=2)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(issuer.config))
    proxy.misbehave = issuer.judge
    return issuer


def test_keys_that_expire_during_a_read_are_renewed(
    issuer: Issuer, s3_server: S3Server, bucket: str, proxy: RecordingProxy
) -> None:
    data = random.Random(0).randbytes(28 * MIB)
    (s3_server.folder / bucket / "k").write_bytes(data)
    with open_client(proxy.endpoint, ONE_ATTEMPT) as client:
        assert client.get_object(bucket, "k").read() == data
    assert issuer.refused >= 1
    assert issuer.issued == 2  # however many requests were refused at the same time
    assert len(proxy.of("GET") + proxy.of("HEAD")) == 6 + 1 + issuer.refused  # HEAD: for the checksum


def test_keys_that_expire_during_a_save_are_renewed(
    issuer: Issuer, s3_server: S3Server, bucket: str, proxy: RecordingProxy
) -> None:
    data = random.Random(1).randbytes(17 * MIB)
    with open_client(proxy.endpoint, ONE_ATTEMPT) as client:
        stream = client.put_object(bucket, "k")
        stream.write(data)
        stream.close()
    assert (s3_server.folder / bucket / "k").read_bytes() == data
    assert issuer.refused >= 1
    assert issuer.issued == 2


def test_new_keys_in_the_environment_are_found(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: ReceivedRequest) -> bytes:
        if "Credential=AKIASECONDKEY/" in request.headers["authorization"]:
            return response(200, b"body")
        os.environ["AWS_ACCESS_KEY_ID"] = "AKIASECONDKEY"
        return EXPIRED

    with ScriptedServer(handler=answer) as server, open_caller(server.endpoint, ONE_ATTEMPT) as caller:
        assert [get(caller), get(caller)] == [b"body", b"body"]
        assert len(server.requests) == 3


def test_expired_keys_that_were_not_renewed_are_an_error(keys: None) -> None:
    with ScriptedServer(handler=in_turn(EXPIRED)) as server, open_caller(server.endpoint) as caller:
        with pytest.raises(S3CredentialsError, match="the environment still names the same ones: renew them") as caught:
            get(caller)
        assert len(server.requests) == 1
    assert isinstance(caught.value.__context__, S3AccessDeniedError)
    assert (caught.value.operation, caught.value.bucket, caught.value.key) == ("GetObject", "b", "k")


def test_renewed_keys_that_are_refused_again_are_an_error(issuer: Issuer, proxy: RecordingProxy, bucket: str) -> None:
    proxy.misbehave = lambda request: Replace(EXPIRED)
    with (
        open_client(proxy.endpoint, ONE_ATTEMPT) as client,
        pytest.raises(S3AccessDeniedError, match=r"ExpiredToken.*refreshing them found no valid ones"),
    ):
        client.delete_object(bucket, "k")
    assert issuer.issued == len(proxy.exchanges) == 2


def test_expiry_is_noticed_in_a_response_to_head_without_code(
    issuer: Issuer, s3_server: S3Server, bucket: str, proxy: RecordingProxy
) -> None:
    (s3_server.folder / bucket / "k").write_bytes(b"12345")
    with open_client(proxy.endpoint, ONE_ATTEMPT) as client:
        assert [client.head_object(bucket, "k").size for _ in range(4)] == [5] * 4
    assert (issuer.refused, issuer.issued) == (1, 2)


def test_a_bad_request_to_head_is_raised_if_no_other_keys_exist(keys: None) -> None:
    with ScriptedServer(handler=in_turn(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
        with (
            open_client(server.endpoint) as client,
            pytest.raises(S3ServiceError, match="HeadObject s3://b/k: HTTP 400"),
        ):
            client.head_object("b", "k")
        assert len(server.requests) == 1


def test_an_expired_session_of_a_directory_bucket_is_replaced(keys: None) -> None:
    issued: list[str] = []

    def answer(request: ReceivedRequest) -> bytes:
        if "session" in request.query:
            issued.append(f"session-{len(issued)}")
            fields = {"SessionToken": issued[-1], "SecretAccessKey": "s", "AccessKeyId": "A",
                      "Expiration": "2999-01-01T00:00:00Z"}  # fmt: skip
            inner = "".join(f"<{name}>{value}</{name}>" for name, value in fields.items())
            return response(
                200, f"<CreateSessionResult><Credentials>{inner}</Credentials></CreateSessionResult>".encode()
            )
        return response(200) if request.headers["x-amz-s3session-token"] == "session-1" else EXPIRED

    bucket = "train--usw2-az1--x-s3"
    with ScriptedServer(handler=answer) as server, open_client(server.endpoint, ONE_ATTEMPT) as client:
        client.delete_object(bucket, "k")
        client.delete_object(bucket, "k")
        assert [each.method for each in server.requests] == ["GET", "DELETE", "GET", "DELETE", "DELETE"]
    assert issued == ["session-0", "session-1"]
