"""Credentials from the program: two accounts in one process, workers of every kind, keys that end during a read."""

from __future__ import annotations

import logging
import multiprocessing.forkserver
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from s3torchconnector import S3Checkpoint, S3Client, S3ClientConfig, S3Credentials, S3MapDataset, S3Reader
from s3torchconnector._errors import S3AccessDeniedError, S3CredentialsError
from s3torchconnector._identity import Credentials, Signer
from s3torchconnector.testing import S3Server
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.memory_s3 import MemoryS3
from tests.servers.proxy import RecordingProxy, Replace
from tests.servers.scripted import ScriptedServer
from tests.wire.support import open_client

MIB = 1 << 20
EXPIRED = s3_error(400, "ExpiredToken", "The provided token has expired.")


@pytest.fixture(autouse=True)
def _no_other_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)


@dataclass(frozen=True)
class FromFile:
    """Reads a server's keys, and notes each call with the id of its process; a new token each time."""

    folder: Path
    access_key: str
    secret_key: str
    token: str | None = None

    def __call__(self) -> S3Credentials:
        import os

        with (self.folder / f"calls-{os.getpid()}").open("a") as calls:
            calls.write("x")
        token = None if self.token is None else f"{self.token}-{len(self.calls())}"
        return S3Credentials(self.access_key, self.secret_key, token)

    def calls(self) -> str:
        """An ``x`` for each call, in any process."""
        return "".join(path.read_text() for path in self.folder.glob("calls-*"))

    def processes(self) -> int:
        return len(list(self.folder.glob("calls-*")))


# -- two accounts ------------------------------------------------------------------------------------------------------

ACCOUNTS = {"data": S3Credentials("AKIDDATA", "secret-of-data"), "saves": S3Credentials("AKIDSAVES", "secret-of-saves")}


class TwoAccounts:
    """A server of two buckets, each of one account: verifies each request's signature with that account's secret."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        self._memory = {bucket: MemoryS3() for bucket in ACCOUNTS}

    def __call__(self, request: ReceivedRequest) -> bytes:
        bucket = request.path.split("/")[1]
        keys = ACCOUNTS[bucket]
        if request.headers["authorization"] == self._signature(request, keys):
            return self._memory[bucket].answer(request)
        self.refused.append(request.target)
        return s3_error(403, "AccessDenied", "Access Denied")

    def _signature(self, request: ReceivedRequest, keys: S3Credentials) -> str:
        headers = request.headers
        signed = headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
        added = ("x-amz-date", "x-amz-content-sha256")
        path, _, query = request.target.partition("?")
        return Signer("us-east-1").sign(
            Credentials(keys.access_key, keys.secret_key), request.method, path, query,
            {name: headers[name] for name in signed if name not in added},
            headers["x-amz-content-sha256"], headers["x-amz-date"],
        )["authorization"]  # fmt: skip


def test_two_accounts_in_one_process() -> None:
    server = TwoAccounts()
    with ScriptedServer(handler=server) as scripted:
        configs = {name: S3ClientConfig(credentials=keys, max_attempts=1) for name, keys in ACCOUNTS.items()}
        data = S3Client("us-east-1", endpoint=scripted.endpoint, s3client_config=configs["data"])
        saves = S3Checkpoint("us-east-1", scripted.endpoint, configs["saves"])
        with data, saves._client:
            for turn in range(3):
                with data.put_object("data", "k") as writer:
                    writer.write(b"%d" % turn)
                with saves.writer("s3://saves/k") as writer:
                    writer.write(data.get_object("data", "k").read())
                assert saves.reader("s3://saves/k").read() == b"%d" % turn
            assert server.refused == []
            assert data._runtime().caller._pool is saves._client._runtime().caller._pool
            with pytest.raises(S3AccessDeniedError, match=r"s3://saves/k"):
                data.get_object("saves", "k").read()
        assert len(server.refused) == 1


# -- workers -----------------------------------------------------------------------------------------------------------


def content(reader: S3Reader) -> bytes:
    return reader.read()


@pytest.fixture
def fork_server_ends() -> Iterator[None]:
    """A fork server that begins in a test has its environment, without keys, and later tests need another."""
    yield
    multiprocessing.forkserver._forkserver._stop()  # type: ignore[attr-defined]


@pytest.mark.usefixtures("fork_server_ends")
@pytest.mark.parametrize("context", ["fork", "forkserver"])
def test_workers_ask_the_function_themselves(context: str, s3_server: S3Server, bucket: str, tmp_path: Path) -> None:
    for i in range(4):
        (s3_server.folder / bucket / f"{i}").write_bytes(b"%d" % i)
    issue = FromFile(tmp_path, s3_server.access_key, s3_server.secret_key)
    dataset = S3MapDataset.from_prefix(
        f"s3://{bucket}/",
        region="us-east-1",
        endpoint=s3_server.endpoint,
        transform=content,
        s3client_config=S3ClientConfig(credentials=issue),
    )
    assert dataset[0] == b"0"
    loader = DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context=context)
    assert list(loader) == [b"0", b"1", b"2", b"3"]
    assert (issue.processes(), len(issue.calls())) == (2, 2)


# -- renewal -----------------------------------------------------------------------------------------------------------


def test_keys_that_end_during_a_read_are_renewed_by_one_call(
    s3_server: S3Server, bucket: str, proxy: RecordingProxy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    data = random.Random(0).randbytes(28 * MIB)
    (s3_server.folder / bucket / "k").write_bytes(data)
    left = threading.Semaphore(2)
    refused = []

    def judge(request: ReceivedRequest) -> Replace | None:
        if request.headers["x-amz-security-token"] != "token-1" or left.acquire(blocking=False):
            return None
        refused.append(request)
        return Replace(EXPIRED if request.method != "HEAD" else b"HTTP/1.1 400 Bad Request\r\n\r\n")

    proxy.misbehave = judge
    issue = FromFile(tmp_path, s3_server.access_key, s3_server.secret_key, "token")
    with open_client(proxy.endpoint, S3ClientConfig(max_attempts=1, part_size=5 * MIB, credentials=issue)) as client:
        assert client.get_object(bucket, "k").read() == data
        told = client.debug_state() + repr(client.s3client_config)
    assert len(refused) >= 1
    assert len(issue.calls()) == 2
    for secret in (s3_server.secret_key, "token-1", "token-2"):
        assert secret not in told + caplog.text


def test_the_error_of_the_function_names_the_object_and_the_function() -> None:
    def issue() -> S3Credentials:
        raise RuntimeError("the login has expired")

    with ScriptedServer(handler=lambda request: response(200, b"body")) as server:
        config = S3ClientConfig(credentials=issue, max_attempts=1)
        with open_client(server.endpoint, config) as client:
            for _ in range(2):
                with pytest.raises(S3CredentialsError, match=r"s3://b/k.*issue.*the login has expired") as caught:
                    client.get_object("b", "k").read()
                assert isinstance(caught.value.__cause__, RuntimeError)
        assert server.requests == []


def test_keys_of_a_real_server_as_a_value(s3_server: S3Server, bucket: str) -> None:
    keys = S3Credentials(s3_server.access_key, s3_server.secret_key)
    with open_client(s3_server.endpoint, S3ClientConfig(credentials=keys)) as client:
        with client.put_object(bucket, "k") as writer:
            writer.write(b"12345")
        assert client.get_object(bucket, "k").read() == b"12345"
    wrong = S3Credentials(s3_server.access_key, s3_server.secret_key[::-1])
    with open_client(s3_server.endpoint, S3ClientConfig(credentials=wrong)) as client:
        with pytest.raises(S3AccessDeniedError, match="SignatureDoesNotMatch") as caught:
            client.get_object(bucket, "k").read()
        assert wrong.secret_key not in str(caught.value)
