"""Look-ups that are slow, fail for a while, or never end: requests keep their deadlines and valid keys."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from s3torchconnector import S3ClientConfig
from s3torchconnector._errors import S3CredentialsError, S3Exception, S3ServiceError, S3TimeoutError
from s3torchconnector._wire import Caller, operations, read_document
from tests.identity.conftest import AwsFiles
from tests.servers.http_messages import ReceivedRequest, response
from tests.servers.scripted import Close, Reply, ScriptedServer, Stall
from tests.wire.support import REGION, get, in_turn

GRACE = 20.0  # seconds that a loaded machine may take; what waits for more than it should takes longer
BODY = response(200, b"body")
KEYS = {
    "AccessKeyId": "I",
    "SecretAccessKey": "s",
    "Token": "t",
    "Code": "Success",
    "Expiration": "2999-01-01T00:00:00Z",
}


@contextlib.contextmanager
def calling(answer: Reply, **settings: object) -> Iterator[tuple[Caller, ScriptedServer]]:
    """A caller of a server that always sends this response."""
    with ScriptedServer(handler=in_turn(answer)) as server:
        caller = Caller(REGION, server.endpoint, S3ClientConfig(**settings), "test/1")  # type: ignore[arg-type]
        with contextlib.closing(caller):
            yield caller, server


def metadata(request: ReceivedRequest) -> bytes:
    if request.path.endswith("/security-credentials/trainer"):
        return response(200, json.dumps(KEYS).encode())
    return response(200, b"trainer" if request.method == "GET" else b"token")


@contextlib.contextmanager
def metadata_service(monkeypatch: pytest.MonkeyPatch, failures: int, *, failure: Reply) -> Iterator[ScriptedServer]:
    """An instance metadata service that fails so many times, and then does not."""
    left = [failure] * failures
    with ScriptedServer(handler=lambda request: left.pop() if left else metadata(request)) as service:
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.endpoint)
        yield service


def test_a_metadata_service_that_recovers_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with metadata_service(monkeypatch, 9, failure=[Close()]), calling(BODY) as (caller, server):
        assert get(caller) == b"body"
        assert "Credential=I/" in server.requests[0].headers["authorization"]


@pytest.mark.parametrize("answer", [response(404), response(200)], ids=["404", "empty"])
def test_a_machine_without_a_role_fails_at_once(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    with metadata_service(monkeypatch, 100, failure=answer) as service, calling(BODY) as (caller, _):
        with pytest.raises(S3CredentialsError, match="no AWS credentials found"):
            get(caller)
        assert len(service.requests) <= 4


def test_without_a_metadata_service_nothing_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with metadata_service(monkeypatch, 0, failure=BODY):
        pass  # only its address is needed: nothing listens there any more
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED", raising=False)
    began = time.perf_counter()
    with calling(BODY) as (caller, _), pytest.raises(S3CredentialsError, match="no AWS credentials found"):
        get(caller)
    assert time.perf_counter() - began < GRACE


def test_an_endless_lookup_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_METADATA_SERVICE_TIMEOUT", "60")
    with (
        metadata_service(monkeypatch, 100, failure=[Stall(threading.Event())]),
        calling(BODY, operation_timeout=0.3) as (caller, server),
        ThreadPoolExecutor(6) as threads,
    ):
        began = time.perf_counter()
        errors = [future.exception() for future in [threads.submit(get, caller) for _ in range(6)]]
        assert time.perf_counter() - began < GRACE
        assert [type(error) for error in errors] == [S3TimeoutError] * 6
        assert "the AWS credentials took too long to look up" in str(errors[0])
        assert server.requests == []


def test_a_reason_known_at_the_deadline_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        metadata_service(monkeypatch, 10**6, failure=[Close()]),
        calling(BODY, operation_timeout=1.0) as (caller, _),
        pytest.raises(S3CredentialsError, match=r"GetObject s3://b/k: no AWS credentials found"),
    ):
        get(caller)


# -- programs that print credentials --------------------------------------------------------------------------------


class Program:
    """A ``credential_process`` that prints what the test has written for its call, when it has."""

    def __init__(self, folder: Path, files: AwsFiles) -> None:
        self._folder = folder
        (folder / "calls").write_text("")
        (folder / "program.py").write_text(
            "import pathlib, sys\n"
            "folder = pathlib.Path(sys.argv[1])\n"
            "with open(folder / 'calls', 'a') as calls:\n"
            "    calls.write('x')\n"
            "print((folder / str(len((folder / 'calls').read_text()))).read_text())\n"
        )
        files.config.write_text(f"[default]\ncredential_process = {sys.executable} {folder}/program.py {folder}\n")

    @property
    def calls(self) -> int:
        return len((self._folder / "calls").read_text())

    def prints(self, call: int, minutes: float | None) -> None:
        """The call will print credentials that are valid for so long; rubbish if None."""
        (self._folder / str(call)).write_text(self._text(call, minutes))

    @contextlib.contextmanager
    def hangs(self, call: int) -> Iterator[None]:
        """The call will not end until this does."""
        fifo = self._folder / str(call)
        os.mkfifo(fifo)
        try:
            yield
        finally:
            descriptor = os.open(fifo, os.O_RDWR)  # which waits for no reader
            os.write(descriptor, self._text(call, 120).encode())
            (self._folder / f"{call}.new").write_text(self._text(call, 120))
            (self._folder / f"{call}.new").rename(fifo)  # for a call that comes later
            os.close(descriptor)

    def _text(self, call: int, minutes: float | None) -> str:
        if minutes is None:
            return "rubbish"
        end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60 * minutes))
        keys = {"AccessKeyId": f"KEY{call}", "SecretAccessKey": "s", "SessionToken": "t", "Expiration": end}
        return json.dumps({"Version": 1, **keys})


@pytest.fixture
def program(tmp_path: Path, aws_files: AwsFiles) -> Program:
    folder = tmp_path / "program"
    folder.mkdir()
    return Program(folder, aws_files)


def access_key(request: ReceivedRequest) -> str:
    return request.headers["authorization"].split("Credential=")[1].split("/")[0]


def test_a_bad_request_to_head_causes_one_lookup(program: Program) -> None:
    program.prints(1, 120)
    for call in (2, 3, 4):
        program.prints(call, None)
    with calling(response(400)) as (caller, server):
        for _ in range(3):
            with pytest.raises(S3ServiceError, match="HeadObject s3://b/k: HTTP 400"):
                caller.call(operations.head_object("b", "k"), read_document)
        assert [access_key(request) for request in server.requests] == ["KEY1"] * 3
    assert program.calls == 2


def test_requests_use_valid_keys_while_they_are_renewed(program: Program) -> None:
    program.prints(1, 9)
    program.prints(2, 9)
    with program.hangs(3), calling(BODY) as (caller, server), ThreadPoolExecutor(1) as threads:
        clock = [0.0]
        assert get(caller) == b"body"
        found = caller._authenticator._provider._found  # type: ignore[attr-defined]
        found._clock = lambda: clock[0]
        found._check_at = 0.0  # now it is seen that they end soon
        try:
            for _ in range(5):
                assert threads.submit(get, caller).result(20) == b"body"
            assert {access_key(request) for request in server.requests} == {"KEY2"}
        finally:
            caller.close()


def test_a_process_that_fails_once_is_asked_again(program: Program) -> None:
    program.prints(1, None)
    program.prints(2, 120)
    with calling(BODY) as (caller, _):
        assert get(caller) == b"body"


def test_keys_with_a_line_break_reach_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "hush\r\nx-injected: hush")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    with calling(BODY) as (caller, server):
        with pytest.raises(S3Exception) as caught:
            get(caller)
        assert isinstance(caught.value, S3CredentialsError)
        assert "hush" not in str(caught.value)
        assert server.requests == []
