"""``s3torch cp`` after errors, or when a person ends it: no half file, no open upload, the right exit code."""

from __future__ import annotations

import errno
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from s3torchconnector import S3Client
from s3torchconnector._cli._cp._partial_files import PartialFiles
from s3torchconnector.testing import S3Server
from tests.cli.support import at_terminal, call, peak_memory, s3torch
from tests.servers.http_messages import ReceivedRequest, s3_error
from tests.servers.moto_server import MotoServer
from tests.servers.proxy import Fault, RecordingProxy, Replace, StallBody

_LARGE = 20 * 1024 * 1024


@pytest.fixture
def objects(s3_server: S3Server, bucket: str) -> str:
    """The prefix of ten small objects, and of a large one."""
    folder = s3_server.folder / bucket / "x"
    folder.mkdir()
    for number in range(10):
        (folder / str(number)).write_bytes(os.urandom(1000))
    (folder / "large").write_bytes(os.urandom(_LARGE))
    return f"s3://{bucket}/x/"


@contextmanager
def _stalling(proxy: RecordingProxy, when: Callable[[ReceivedRequest], bool], after: int | None) -> Iterator[None]:
    """The responses to these requests stop after so many bytes."""
    release = threading.Event()
    fault = StallBody(release, after)

    def misbehave(request: ReceivedRequest) -> Fault | None:
        return fault if when(request) else None

    proxy.misbehave = misbehave
    try:
        yield
    finally:
        release.set()


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_an_object_that_cannot_be_read_does_not_stop_the_others(
    objects: str, proxy: RecordingProxy, tmp_path: Path
) -> None:
    denied = Replace(s3_error(403, "AccessDenied"))
    proxy.misbehave = lambda request: denied if request.path.endswith(("/3", "/large")) else None
    done = call("cp", "-r", objects, str(tmp_path / "y"), f"--endpoint-url={proxy.endpoint}")
    assert (done.returncode, done.stdout) == (1, "")
    *failures, figures = done.stderr.splitlines()
    assert sorted(line.partition(" -> ")[0] for line in failures) == [f"s3torch: {objects}{n}" for n in ("3", "large")]
    assert figures.startswith("s3torch: copied 9 files, ")
    assert figures.endswith("; failed to copy 2 files")
    assert _files(tmp_path / "y") == sorted(set("0123456789") - {"3"})


def test_an_error_that_affects_all_is_reported_once(objects: str, s3_server: S3Server, tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).touch()
    done = call("cp", "-r", str(tmp_path), "s3://there-is-none/x")
    assert done.returncode == 1
    assert done.stderr.count("NoSuchBucket") == 1


@pytest.mark.parametrize(("ends", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_a_download_that_is_ended_leaves_whole_files_only(
    objects: str, proxy: RecordingProxy, tmp_path: Path, ends: signal.Signals, code: int
) -> None:
    folder = tmp_path / "y"
    with (
        _stalling(proxy, lambda request: request.method == "GET" and request.path.endswith("/large"), 1_000_000),
        at_terminal("cp", "-r", objects, str(folder), f"--endpoint-url={proxy.endpoint}") as terminal,
    ):
        terminal.until(lambda: set(_files(folder)) > set("0123456789"))  # and there is a part of another
        if ends is signal.SIGINT:
            terminal.type("\x03")
        else:
            terminal.process.send_signal(ends)
        assert terminal.wait() == code
        assert "copied " in terminal.seen
        assert " -> " not in terminal.seen  # nothing has failed
        assert "Traceback" not in terminal.seen
    assert _files(folder) == sorted("0123456789")


def test_an_upload_that_is_ended_is_aborted(moto_server: MotoServer, moto_bucket: str, tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / name).write_bytes(os.urandom(_LARGE))
    command = ["cp", "-r", str(tmp_path), f"s3://{moto_bucket}/"]
    with (
        RecordingProxy(moto_server.endpoint) as proxy,
        _stalling(proxy, lambda request: request.query.get("partNumber") == "2", None),
        at_terminal(*command, f"--endpoint-url={proxy.endpoint}") as terminal,
    ):
        terminal.until(lambda: any(each.query.get("partNumber") == "2" for each in proxy.exchanges))
        terminal.type("\x03")
        assert terminal.wait() == 130
        assert " -> " not in terminal.seen  # nothing has failed
    with S3Client("us-east-1", endpoint=moto_server.endpoint) as client:
        assert list(client.list_multipart_uploads(moto_bucket)) == []
        assert sum(len(page) for page in client.list_all(moto_bucket)) == 0


def test_a_file_that_changes_while_it_is_read_is_not_stored(
    s3_server: S3Server, bucket: str, proxy: RecordingProxy, tmp_path: Path
) -> None:
    path = tmp_path / "large"
    with open(path, "wb") as file:
        file.truncate(200_000_000)  # more than the memory budget: it is not read whole before a part is sent

    def misbehave(request: ReceivedRequest) -> None:
        if "partNumber" in request.query:
            os.utime(path)

    proxy.misbehave = misbehave
    done = call("cp", str(path), f"s3://{bucket}/", f"--endpoint-url={proxy.endpoint}")
    assert done.returncode == 1
    assert "the file was changed while it was read" in done.stderr
    with S3Client(s3_server.region) as client:
        assert sum(len(page) for page in client.list_all(bucket)) == 0


def test_large_files_need_little_memory(s3_server: S3Server, bucket: str, tmp_path: Path) -> None:
    with open(tmp_path / "large", "wb") as file:
        file.truncate(300_000_000)
    _, up = peak_memory("cp", str(tmp_path / "large"), f"s3://{bucket}/")
    _, down = peak_memory("cp", f"s3://{bucket}/large", str(tmp_path / "back"))
    assert (tmp_path / "back").stat().st_size == 300_000_000
    assert max(up, down) < 270_000_000  # 128 MiB of the budget, what it may exceed that by, and Python


def test_a_file_that_another_process_makes_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(descriptor: int) -> None:
        os.write(descriptor, b"ours")
        (tmp_path / "file").write_bytes(b"theirs")

    with PartialFiles(replace=False, sync=False) as files:
        assert not files.write(str(tmp_path / "file"), fill, 0.0)
        monkeypatch.setattr(os, "link", _no_link)  # as on a file system without links
        assert not files.write(str(tmp_path / "file"), fill, 0.0)
        assert files.write(str(tmp_path / "new/file"), fill, 0.0)
    assert (tmp_path / "file").read_bytes() == b"theirs"
    assert _files(tmp_path) == ["file", "new", "new/file"]


def _no_link(*names: str) -> None:
    raise PermissionError(errno.EPERM, "no links here")


def test_the_figures_are_shown_while_it_runs(objects: str, proxy: RecordingProxy, tmp_path: Path) -> None:
    release = threading.Event()
    fault = StallBody(release, 1_000_000)
    proxy.misbehave = lambda request: fault if request.path.endswith("/large") else None
    command = ["cp", "-r", objects, str(tmp_path / "y"), f"--endpoint-url={proxy.endpoint}"]
    with at_terminal(*command) as terminal:
        terminal.until(lambda: len(_files(tmp_path / "y")) == 11)
        timer = threading.Timer(1.5, release.set)
        timer.start()
        assert terminal.wait() == 0
        timer.join()
    assert "copying: " in terminal.seen
    assert "copied 11 files" in terminal.seen


@contextmanager
def _files_of_at_most(size: int) -> Iterator[None]:
    """No file of this process may be longer."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_file_that_the_system_does_not_take_is_named(objects: str, tmp_path: Path) -> None:
    target = str(tmp_path / "large")
    with _files_of_at_most(_LARGE // 2):
        done = call("cp", f"{objects}large", target)
    assert (done.returncode, _files(tmp_path)) == (1, [])
    assert f"-> {target}: [Errno {errno.EFBIG}] File too large. The file system, or a limit" in done.stderr
    assert ".part" not in done.stderr


def test_a_full_disk_is_reported_with_the_file_and_advice(objects: str, tmp_path: Path) -> None:
    advice = f"[Errno {errno.ENOSPC}] No space left on device. Free some space, or write to another disk"
    with (
        PartialFiles(replace=True, sync=False) as files,
        open("/dev/full", "wb", buffering=0) as full,
        pytest.raises(OSError, match="No space left") as raised,
    ):
        files.write(str(tmp_path / "x"), lambda _: full.write(b"1"), 0.0)
    assert str(raised.value) == f"{advice}: '{tmp_path / 'x'}'"
    assert raised.value.errno == errno.ENOSPC
    done = call("cp", f"{objects}1", "/dev/full")
    assert (done.returncode, done.stderr) == (1, f"s3torch: {advice}: '/dev/full'\n")


@pytest.mark.parametrize("command", ["cat", "ls"])
def test_output_to_a_full_disk_is_one_line(objects: str, command: str) -> None:
    with open("/dev/full", "wb") as full:
        done = s3torch(command, f"{objects}1", output=full)
    assert done.returncode == 1
    assert done.stderr.startswith("s3torch: [Errno 28] No space left on device. Free some space")
    assert done.stderr.endswith(": 'standard output'\n")
    assert done.stderr.count("\n") == 1


def test_a_folder_that_takes_no_files_is_told_by_the_name_of_the_file(objects: str) -> None:
    target = "/sys/s3torch-test"
    done = call("cp", f"{objects}1", target)
    assert done.returncode == 1
    assert f": '{target}'" in done.stderr
    assert ". Change the permissions" in done.stderr or ". Write to a folder" in done.stderr
    assert ".part" not in done.stderr


def test_what_killed_downloads_have_left_is_not_uploaded(s3_server: S3Server, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in (".s3torch-0123456789abcdef.part", "a/.s3torch-fedcba9876543210.part", "a/.s3torch-mine.part", "b"):
        (tmp_path / name).write_bytes(b"1")
    done = call("cp", "-r", str(tmp_path), f"s3://{bucket}/x")
    assert done.returncode == 0
    remark, figures = done.stderr.splitlines()
    assert remark == "s3torch: left out 2 files (.s3torch-....part) of downloads that were killed, or are under way"
    assert figures.startswith("copied 2 files, ")
    assert _files(s3_server.folder / bucket / "x") == ["a", "a/.s3torch-mine.part", "b"]
