"""A save in a process that ends: the object is what it was, and no multipart upload remains, except after SIGKILL.

Each process has a writer of 1 KiB open and one of 17 MiB, see ``saver``.
"""

from __future__ import annotations

import signal
import threading
from types import SimpleNamespace

import pytest

from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer.writing import _abandoned_uploads
from tests.servers.proxy import RecordingProxy, StallBody
from tests.writing.conftest import Saver
from tests.writing.support import (
    SIZES,
    PartsSeen,
    assert_no_upload_remains,
    assert_untouched,
    assert_upload_created,
    is_abort,
    is_complete,
    is_put,
    matching,
    noise,
    read_back,
    uploads_of,
)


@pytest.mark.parametrize(
    ("how", "status"),
    [("sys_exit", 3), ("uncaught_exception", 1), ("globals_at_exit", 0),
     ("multiprocessing_child_leaves_writers_open", 0)],
)  # fmt: skip
def test_the_end_of_the_program_aborts(
    client: S3Client, saved: str, proxy: RecordingProxy, saver: Saver, how: str, status: int
) -> None:
    with saver.save(how, proxy.endpoint, saved) as process:
        assert process.wait() == status
    assert_upload_created(proxy, "large")
    assert_untouched(client, saved, proxy)
    assert_no_upload_remains(client, saved, proxy)


@pytest.mark.parametrize(
    ("how", "number", "status", "stall"),
    [
        ("wait_for_a_signal", signal.SIGTERM, -signal.SIGTERM, False),
        ("wait_for_a_signal", signal.SIGTERM, -signal.SIGTERM, True),
        ("wait_for_a_signal", signal.SIGINT, -signal.SIGINT, True),
        ("wait_for_a_signal_with_a_handler", signal.SIGTERM, 7, False),
        ("write_until_a_signal", signal.SIGTERM, -signal.SIGTERM, False),
        ("write_until_a_signal", signal.SIGTERM, -signal.SIGTERM, True),
        ("write_until_a_signal", signal.SIGINT, -signal.SIGINT, False),
    ],
)
def test_a_signal_aborts_and_ends_the_program(
    client: S3Client,
    saved: str,
    proxy: RecordingProxy,
    saver: Saver,
    how: str,
    number: signal.Signals,
    status: int,
    stall: bool,
) -> None:
    proxy.misbehave = parts = PartsSeen(stall)
    with saver.save(how, proxy.endpoint, saved) as process:
        process.wait_for("written")
        assert parts.arrived.wait(30)
        process.kill(number)
        assert process.wait() == status
    assert_upload_created(proxy, "large")
    assert_untouched(client, saved, proxy)
    assert_no_upload_remains(client, saved, proxy)


def test_nothing_is_opened_once_sigterm_has_come(
    client: S3Client, saved: str, proxy: RecordingProxy, saver: Saver
) -> None:
    """A save on another thread goes on while uploads are aborted, and begins others."""
    ended = threading.Event()
    proxy.misbehave = lambda request: StallBody(ended) if is_abort(request) else None
    with saver.save("open_another_after_a_signal", proxy.endpoint, saved) as process:
        process.wait_for("written")
        process.kill(signal.SIGTERM)
        process.wait_for("refused")
        ended.set()
        assert process.wait() == -signal.SIGTERM
    assert_untouched(client, saved, proxy)
    assert_no_upload_remains(client, saved, proxy)


def test_sigkill_leaves_the_object_alone(client: S3Client, saved: str, proxy: RecordingProxy, saver: Saver) -> None:
    proxy.misbehave = parts = PartsSeen()
    with saver.save("wait_for_a_signal", proxy.endpoint, saved) as process:
        process.wait_for("written")
        assert parts.arrived.wait(30)
        process.kill(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert_upload_created(proxy, "large")
    assert_untouched(client, saved, proxy)
    assert len(uploads_of(client, saved)) == 1, "the server shows what remains, so the other tests would see it"


def test_a_forked_child_may_drop_its_parents_writer(
    client: S3Client, saved: str, proxy: RecordingProxy, saver: Saver
) -> None:
    with saver.save("forked_child_drops_the_writers", proxy.endpoint, saved) as process:
        assert process.wait() == 0
    for key, size in SIZES.items():
        assert read_back(client, saved, key) == noise(size, seed=len(key))
    assert len(matching(proxy, is_complete)) == len(matching(proxy, is_put)) == 1
    assert not matching(proxy, is_abort)


def test_aborts_without_threads_share_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    class Silent:
        """An upload that S3 does not respond for: to abort it takes as long as it may."""

        def __init__(self) -> None:
            self.allowed = 0.0

        def abort(self, seconds: float | None = None) -> None:
            assert seconds is not None
            self.allowed = seconds
            now[0] += seconds

    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    monkeypatch.setattr(_abandoned_uploads, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    uploads = [Silent() for _ in range(4)]
    _abandoned_uploads.abort_together(uploads, 4.0)
    assert [upload.allowed for upload in uploads] == pytest.approx([1.0] * 4)
