"""Systems without the names of POSIX (Windows): see ``without_posix``. No test has run on Windows itself."""

from __future__ import annotations

import os
import select
import socket
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest

from s3torchconnector._uri import path_text
from s3torchconnector._wire._polling import POLLIN, POLLOUT, PipeWakeup, Poll, SelectPoll, SocketWakeup
from s3torchconnector.dcp import S3FileSystem
from s3torchconnector.testing import S3Server
from tests.servers.warm import WarmPython

_PROGRAM = Path(__file__).parent / "without_posix.py"


@pytest.mark.parametrize(
    ("server", "parts"),
    [("s3_server", ["objects", "datasets", "checkpoints", "limits"]), ("s3_server_tls", ["objects"])],
)
def test_readers_writers_datasets_and_checkpoints_need_no_posix(
    server: str, parts: list[str], request: pytest.FixtureRequest, warm_python: WarmPython
) -> None:
    s3: S3Server = request.getfixturevalue(server)
    name = f"without-posix-{server.replace('_', '-')}"
    s3.make_bucket(name)
    environment = {**os.environ, **s3.env()}
    ended = warm_python.run("-W", "ignore", str(_PROGRAM), s3.endpoint, name, *parts, seconds=150, env=environment)
    assert ended.stdout.split() == parts, ended.stderr
    assert ended.returncode == 0
    assert ended.stderr == ""


@pytest.mark.parametrize("path", [PureWindowsPath("s3://bucket/a/b"), PurePosixPath("s3://bucket/a/b")])
def test_paths_of_windows_are_objects(path: PureWindowsPath | PurePosixPath) -> None:
    assert path_text(path) == "s3:/bucket/a/b"
    assert S3FileSystem("us-east-1").init_path(path) == "s3://bucket/a/b"
    assert S3FileSystem.validate_checkpoint_id(path)


@pytest.mark.parametrize("new", [SelectPoll, select.poll])
def test_a_poll_returns_the_ready_descriptors(new: type[Poll]) -> None:
    poll, (ours, theirs) = new(), socket.socketpair()
    with ours, theirs:
        poll.register(ours, POLLIN)
        assert poll.poll(0) == []
        theirs.send(b"x")
        assert poll.poll(1000) == [(ours.fileno(), POLLIN)]
        poll.register(ours, POLLIN | POLLOUT)
        assert poll.poll() == [(ours.fileno(), POLLIN | POLLOUT)]
        poll.register(ours, POLLOUT)
        assert poll.poll(-1) == [(ours.fileno(), POLLOUT)]
        poll.unregister(ours)
        assert poll.poll(1) == []


@pytest.mark.parametrize("kind", [PipeWakeup, SocketWakeup])
def test_a_thread_that_polls_is_woken(kind: type[PipeWakeup] | type[SocketWakeup]) -> None:
    wakeup, poll = kind(), SelectPoll()
    poll.register(wakeup, POLLIN)
    assert poll.poll(0) == []
    wakeup.wake()
    wakeup.wake()
    assert poll.poll(1000) == [(wakeup.fileno(), POLLIN)]
    wakeup.clear()
    assert poll.poll(0) == []
    wakeup.close()
