"""Servers and surroundings for every test: the real S3 server, buckets, no settings of the machine.

Nothing is skipped because a server is missing; what cannot start is an error.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import shutil
import signal
import uuid
from collections.abc import Generator, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from s3torchconnector._transfer import PutObjectStream, address_of
from s3torchconnector._wire._retry import RetryPolicy
from s3torchconnector.testing import S3Server
from tests.servers.moto_server import MotoServer
from tests.servers.processes import no_process_left_behind
from tests.servers.proxy import RecordingProxy
from tests.servers.tls import PrivateCA
from tests.servers.warm import WarmPython

# How long an example takes says nothing on a busy machine. The examples of a test share its client and its bucket.
settings.register_profile(
    "tests", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("tests")
# What processes of the start method "forkserver" have from their beginning, instead of seconds of imports in each.
multiprocessing.set_forkserver_preload(["pytest", "s3torchconnector.dcp", "torch._dynamo"])
_M_ARENA_MAX = -8  # https://man7.org/linux/man-pages/man3/mallopt.3.html
_LIBC = ctypes.CDLL(None)
_STRIKES_AGAIN_SECONDS = 30.0
_PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


def pytest_configure() -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what it runs in its background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(_LIBC, "malloc_trim"):
        # Threads would have arenas of their own, of each of which malloc_trim leaves up to 64 MiB of free memory.
        _LIBC.mallopt(_M_ARENA_MAX, 1)


def pytest_collection() -> None:
    """Collect no garbage until the tests are there: what is imported stays."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Leave the collected tests out of garbage collections: each would take 0.2 s, in forked children, too."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer() -> Generator[None, Any, Any]:
    """Strike again every half minute after the first time: a test that failed may wait for its servers forever."""
    result = yield
    seconds, _ = signal.getitimer(signal.ITIMER_REAL)
    if seconds:
        signal.setitimer(signal.ITIMER_REAL, seconds, _STRIKES_AGAIN_SECONDS)
    return result


@pytest.fixture(scope="session", autouse=True)
def _surroundings() -> Iterator[None]:
    """No AWS or proxy settings of the machine, and no process that outlives the session."""
    with pytest.MonkeyPatch.context() as patch, no_process_left_behind():
        for name in list(os.environ):
            if name.startswith("AWS_") or name.upper() in _PROXY_VARIABLES:
                patch.delenv(name)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        yield


@pytest.fixture(scope="module", autouse=True)
def _memory_is_given_back() -> Iterator[None]:
    """The time that a fork takes, and the end of its child, grows with the memory of this process."""
    yield
    if hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(0)


@pytest.fixture(scope="session")
def s3_server(_surroundings: None) -> Iterator[S3Server]:
    """The real S3 server (rclone); from here on ``os.environ`` holds its keys, region and endpoint."""
    with S3Server() as server, server.exported():
        yield server
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)  # for 10 s it would wait for connections that dropped readers have kept


@pytest.fixture
def bucket(s3_server: S3Server) -> Iterator[str]:
    """The name of a new, empty bucket.

    A file in ``s3_server.folder / bucket`` is an object if it is there before the first request.
    """
    name = f"test-{uuid.uuid4().hex}"
    folder = s3_server.make_bucket(name)
    yield name
    shutil.rmtree(folder)


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[RecordingProxy]:
    """Counts the requests to ``s3_server``, and misbehaves on demand; use ``proxy.endpoint``."""
    with RecordingProxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def private_ca(tmp_path_factory: pytest.TempPathFactory) -> PrivateCA:
    return PrivateCA.create(tmp_path_factory.mktemp("private-ca"))


@pytest.fixture
def s3_server_tls(private_ca: PrivateCA, s3_server: S3Server) -> Iterator[S3Server]:
    """The real server with TLS, and a certificate that only ``private_ca.bundle`` trusts.

    Its keys are exported while the test runs; AWS_CA_BUNDLE is not, so that a test sees both sides.
    """
    server = S3Server(
        certificate=private_ca.certificate,
        private_key=private_ca.private_key,
        ca_bundle=private_ca.bundle,
    )
    with server, server.exported():
        del os.environ["AWS_CA_BUNDLE"]
        yield server


@pytest.fixture(scope="session")
def moto_server(_surroundings: None) -> Iterator[MotoServer]:
    """moto in a separate process, for features that rclone ignores; any keys are good."""
    with MotoServer() as server:
        yield server


@pytest.fixture(scope="session")
def warm_python(_surroundings: None) -> Iterator[WarmPython]:
    """For programs of tests that import PyTorch."""
    with WarmPython() as python:
        yield python


@pytest.fixture
def moto_bucket(moto_server: MotoServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a new bucket of ``moto_server``, with keys and the region us-east-1 in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    name = f"test-{uuid.uuid4().hex}"
    moto_server.make_bucket(name)
    return name


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the attempts of a request, for tests in which nothing depends on how long they are."""
    policy = partial(RetryPolicy, first_backoff=0.001, longest_backoff=0.01)
    monkeypatch.setattr("s3torchconnector._wire._caller.RetryPolicy", policy)


@pytest.fixture
def lent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Address and length of everything that is lent to an upload."""
    seen: list[tuple[int, int]] = []
    write = PutObjectStream.write

    def spy(stream: PutObjectStream, data: Any, *, lent: bool = False) -> int:
        if lent:
            seen.append((address_of(data), data.nbytes))
        return write(stream, data, lent=lent)

    monkeypatch.setattr(PutObjectStream, "write", spy)
    return seen
