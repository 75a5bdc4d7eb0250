"""Ctrl-C in the middle of a read and of a save, and programs that end while transfers are under way.

The programs run under ``python -X dev -W error``: a ResourceWarning, or a traceback at exit, is a line on standard
error, which must stay empty.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed.checkpoint as dcp

from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer.writing import _abandoned_uploads
from s3torchconnector.testing import S3Server
from tests.dcp.support import keys_of, load, same, writer_of
from tests.processes.programs import SIZE, SMALL, distributed
from tests.reading.support import content
from tests.servers.http_messages import ReceivedRequest
from tests.servers.proxy import RecordingProxy, StallBody
from tests.servers.warm import WarmProgram, WarmPython
from tests.writing.support import assert_no_upload_remains, is_part, read_back

_ROOT = Path(__file__).parents[2]
_START_SECONDS = 60.0
_END_SECONDS = 25.0  # the read timeout is 30 s: nothing waits for that


class Program:
    """One run of a program; see ``programs``."""

    def __init__(
        self,
        name: str,
        endpoint: str,
        bucket: str,
        *options: str,
        argument: str | None = None,
        warm: WarmPython | None = None,
    ) -> None:
        command = ["-m", "tests.processes.programs", name, endpoint, bucket]
        if argument is not None:
            command.append(argument)
        self._process: WarmProgram | subprocess.Popen[str]
        if warm is not None:
            self._process = warm.start(*command, cwd=_ROOT)
            return
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [sys.executable, *options, *command],
            stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=_ROOT, start_new_session=True,
        )  # fmt: skip

    def expect(self, word: str) -> None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line == word, self._process.communicate(timeout=_END_SECONDS)[1]

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def terminate(self) -> None:
        self.end_by(signal.SIGTERM)

    def end_by(self, number: signal.Signals | None) -> str:
        """What it says on standard error while it ends by this signal, or by ``sys.exit(3)``."""
        if number is None:
            self.go_on()
        else:
            self._process.send_signal(number)
        _, errors = self._process.communicate(timeout=_END_SECONDS)
        assert self._process.returncode == (3 if number is None else -number), errors
        return errors

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def end(self, seconds: float = _END_SECONDS) -> None:
        """Wait for a good end, without output."""
        _, errors = self._process.communicate(timeout=seconds)
        assert (errors, self._process.returncode) == ("", 0)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # its children, too, which would keep the pipes open
        self._process.communicate()


@pytest.fixture
def filled(s3_server: S3Server, bucket: str) -> str:
    for key, size in {"key": SIZE, "small": SMALL, "s/1": SIZE, "s/2": SMALL}.items():
        path = s3_server.folder / bucket / key
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content(0, size))
    return bucket


class Stalls:
    """A hook: stalls what matters until it is lifted, and says when there are enough of them."""

    def __init__(self, proxy: RecordingProxy, kind: str, count: int = 1) -> None:
        self.release = threading.Event()
        self._kind = kind
        self._left = threading.Semaphore(0)
        self._count = count
        self._lifted = False
        proxy.misbehave = self

    def __call__(self, request: ReceivedRequest) -> StallBody | None:
        is_read = request.method == "GET" and request.path.count("/") > 1
        if self._lifted or not (is_read if self._kind == "read" else is_part(request)):
            return None
        self._left.release()
        return StallBody(self.release, after=100 if self._kind == "read" else None)

    def wait(self) -> None:
        for _ in range(self._count):
            assert self._left.acquire(timeout=30)

    def lift(self) -> None:
        self._lifted = True
        self.release.set()


@contextlib.contextmanager
def stalling(proxy: RecordingProxy, kind: str, count: int = 1) -> Iterator[Stalls]:
    stalls = Stalls(proxy, kind, count)
    try:
        yield stalls
    finally:
        stalls.lift()


@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [
        ("a_read_is_interrupted", "read", 3),
        ("a_prefetched_read_is_interrupted", "read", 1),
        ("a_save_is_interrupted", "part", 2),
    ],
)
def test_an_interruption(
    proxy: RecordingProxy, s3_server: S3Server, filled: str, name: str, kind: str, count: int
) -> None:
    with stalling(proxy, kind, count) as stalls, Program(name, proxy.endpoint, filled) as program:
        program.expect("under way")
        stalls.wait()
        program.interrupt()
        program.expect("interrupted")
        stalls.lift()
        program.go_on()
        program.end()
    with S3Client("us-east-1", endpoint=s3_server.endpoint) as client:
        if kind == "part":
            assert read_back(client, filled, "saved again") == content(0, SIZE)
            assert not (s3_server.folder / filled / "saved").exists()
        assert_no_upload_remains(client, filled, proxy)


@pytest.mark.parametrize(
    ("name", "kind", "count"), [("it_ends_during_reads", "read", 3), ("it_ends_during_a_save", "part", 2)]
)
def test_an_end_with_transfers_under_way(
    proxy: RecordingProxy, s3_server: S3Server, filled: str, name: str, kind: str, count: int
) -> None:
    with (
        stalling(proxy, kind, count) as stalls,
        Program(name, proxy.endpoint, filled, "-X", "dev", "-W", "error") as program,
    ):
        program.expect("under way")
        stalls.wait()
        program.go_on()
        program.end()  # while the responses are still held back
    with S3Client("us-east-1", endpoint=s3_server.endpoint) as client:
        assert not (s3_server.folder / filled / "saved").exists()
        assert_no_upload_remains(client, filled, proxy)


@pytest.mark.parametrize(
    "name", ["a_distributed_save", "an_asynchronous_distributed_save", "a_save_of_a_manager_in_the_background"]
)
def test_sigterm_during_a_save_on_other_threads(
    proxy: RecordingProxy, s3_server: S3Server, bucket: str, warm_python: WarmPython, name: str
) -> None:
    with (
        stalling(proxy, "part", 2) as stalls,
        Program(name, proxy.endpoint, bucket, warm=warm_python) as program,
    ):
        program.expect("under way")
        stalls.wait()
        program.terminate()
    with S3Client("us-east-1", endpoint=s3_server.endpoint) as client:
        assert_no_upload_remains(client, bucket, proxy)


@pytest.mark.parametrize(
    ("name", "count", "number", "seconds"),
    [
        ("four_uploads_are_open", 4, None, _abandoned_uploads._SECONDS_AT_THE_END),
        ("four_uploads_are_open", 4, signal.SIGINT, 0.5),
        ("four_uploads_are_open", 4, signal.SIGTERM, 0.5),
        ("an_upload_begins", 1, None, 0.5),
        ("an_upload_begins", 1, signal.SIGINT, 0.5),
        ("an_upload_begins", 1, signal.SIGTERM, 0.5),
    ],
)
def test_an_end_while_s3_is_silent(
    proxy: RecordingProxy, bucket: str, name: str, count: int, number: signal.Signals | None, seconds: float
) -> None:
    """Within seconds, whether S3 falls silent before or after an upload has begun; each that may remain is named."""
    silent, asked, release = threading.Event(), threading.Event(), threading.Event()

    def stall(request: ReceivedRequest) -> StallBody | None:
        asked.set()
        return StallBody(release) if silent.is_set() else None

    proxy.misbehave = stall
    if name == "an_upload_begins":
        silent.set()
    with Program(name, proxy.endpoint, bucket, argument=str(seconds)) as program:
        program.expect("under way")
        assert asked.wait(30)
        silent.set()
        errors = program.end_by(number)
        release.set()
    assert errors.count("AbortIncompleteMultipartUpload") == count, errors


def test_sigterm_is_handled_while_something_is_saved(
    proxy: RecordingProxy, bucket: str, warm_python: WarmPython
) -> None:
    name = "sigterm_is_handled_while_something_is_saved"
    with Program(name, proxy.endpoint, bucket, warm=warm_python) as program:
        program.end(_START_SECONDS)


def test_a_program_that_handles_sigterm_decides(
    proxy: RecordingProxy, bucket: str, s3_server: S3Server, warm_python: WarmPython
) -> None:
    name = "its_own_sigterm_handler_calls_the_one_before"
    with Program(name, proxy.endpoint, bucket, warm=warm_python) as program:
        program.end(_START_SECONDS)
    assert (s3_server.folder / bucket / "saved").stat().st_size > 0


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
@pytest.mark.xfail((3, 12, 0) <= sys.version_info[:3] < (3, 12, 2), reason="starts no thread at its end", strict=True)
def test_an_end_before_a_distributed_save_begins(proxy: RecordingProxy, bucket: str, warm_python: WarmPython) -> None:
    """It is carried out to the end: its data, its commit, and the deletion of what it replaces."""
    path = f"s3://{bucket}/distributed"
    dcp.save(distributed(1.0), storage_writer=writer_of(path, thread_count=2))
    before = set(keys_of(bucket))
    name = "it_ends_before_a_distributed_save_begins"
    with Program(name, proxy.endpoint, bucket, warm=warm_python) as program:
        program.end(_START_SECONDS)
    assert same(load(path, distributed(0.0)), distributed(2.0))
    assert set(keys_of(bucket)) & before == {"distributed/.metadata"}


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_childs_end_during_a_distributed_save(
    proxy: RecordingProxy, bucket: str, warm_python: WarmPython, method: str
) -> None:
    name = "a_child_ends_during_a_distributed_save"
    with (
        stalling(proxy, "part") as stalls,
        Program(name, proxy.endpoint, bucket, argument=method, warm=warm_python) as program,
    ):
        program.expect("under way")
        stalls.wait()
        program.go_on()
        program.expect("ending")
        stalls.lift()
        program.end(_START_SECONDS)
    assert same(load(f"s3://{bucket}/distributed", distributed(0.0)), distributed(2.0))


def test_a_program_that_uses_everything_gets_no_warning(proxy: RecordingProxy, filled: str) -> None:
    with Program("it_does_everything", proxy.endpoint, filled, "-X", "dev", "-W", "error") as program:
        program.end(_START_SECONDS)
