"""A process that forks the processes whose saves are interrupted."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3torchconnector._s3client import S3Client
from s3torchconnector.testing import S3Server
from tests.servers.moto_server import MotoServer
from tests.servers.proxy import RecordingProxy
from tests.writing.support import PREVIOUS, SIZES, STORED_BY, client_of, noise, writer_of

_ROOT = Path(__file__).parents[2]


class Interrupted:
    """One save in a process of its own: wait for what it says, send it signals, wait for its end."""

    def __init__(self, saver: subprocess.Popen[str], how: str, endpoint: str, bucket: str) -> None:
        assert saver.stdin is not None
        assert saver.stdout is not None
        self._lines = saver.stdout
        saver.stdin.write(f"{how} {endpoint} {bucket}\n")
        saver.stdin.flush()
        first = self._lines.readline()
        self.said = [] if first.strip().isdigit() else [first.strip()]  # the child may speak before its parent
        self.pid = int(first) if first.strip().isdigit() else int(self._lines.readline())
        self.status: int | None = None

    def wait_for(self, word: str) -> None:
        while word not in self.said:
            assert self._next(), f"the process ended without saying {word!r}: {self.said}"

    def kill(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """The exit status, negative for a signal."""
        while self._next():
            pass
        assert self.status is not None
        return self.status

    def _next(self) -> bool:
        if self.status is None:
            line = self._lines.readline().strip()
            assert line, "the saver has ended"
            self.said.append(line)
            if line.startswith("ended "):
                self.status = int(line.split()[1])
        return self.status is None


class Saver:
    """Starts interrupted saves, one at a time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @contextlib.contextmanager
    def save(self, how: str, endpoint: str, bucket: str) -> Iterator[Interrupted]:
        save = Interrupted(self._process, how, endpoint, bucket)
        try:
            yield save
        finally:
            if save.status is None:
                save.kill(signal.SIGKILL)
                save.wait()


@pytest.fixture
def client(s3_server: S3Server) -> Iterator[S3Client]:
    with client_of(s3_server.endpoint) as client:
        yield client


@pytest.fixture
def saved(client: S3Client, bucket: str) -> str:
    """A bucket with a good checkpoint at both keys."""
    for key in SIZES:
        with writer_of(client, bucket, key) as writer:
            writer.write(PREVIOUS)
    return bucket


@pytest.fixture(params=STORED_BY)
def data(request: pytest.FixtureRequest) -> bytes:
    """An object's bytes, for one request and for several."""
    return noise(STORED_BY[request.param], seed=1)


@pytest.fixture
def moto(moto_server: MotoServer) -> Iterator[RecordingProxy]:
    """A proxy before moto, which honours conditions."""
    with RecordingProxy(moto_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def moto_client(moto: RecordingProxy) -> Iterator[S3Client]:
    with client_of(moto.endpoint) as client:
        yield client


@pytest.fixture(scope="session")
def saver(s3_server: S3Server) -> Iterator[Saver]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.writing.saver"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=_ROOT,
    )
    try:
        yield Saver(process)
    finally:
        process.communicate(timeout=30)


@pytest.fixture(autouse=True)
def _short_pauses(short_pauses: None) -> None:
    """In every test here."""
