"""A save that is interrupted leaves the object what it was, and no multipart upload.

Each way of ending is tried with a writer of 1 KiB (one PUT) and one of 17 MiB (four parts), in a process that goes on.
"""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import pytest
import torch

from s3torchconnector import S3Checkpoint, S3ClientConfig, S3Exception, S3Writer
from s3torchconnector._errors import S3UploadAbortedError
from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer.writing import _abandoned_uploads, _part_buffer, _put_object_stream, _upload
from tests.reading.support import wait_until
from tests.servers.http_messages import ReceivedRequest, s3_error
from tests.servers.proxy import Fault, RecordingProxy, Replace
from tests.writing.support import (
    PART,
    PREVIOUS,
    SIZES,
    SMALL_PARTS,
    Begun,
    PartsSeen,
    assert_no_upload_remains,
    assert_untouched,
    assert_upload_created,
    client_of,
    is_abort,
    is_complete,
    is_put,
    matching,
    noise,
    read_back,
    save,
    uploads_of,
    write_and_raise,
    writer_of,
)


class Unpicklable:
    def __init__(self, begun: Begun) -> None:
        self._begun = begun

    def __reduce__(self) -> str:
        self._begun.wait()
        raise pickle.PicklingError("as the test says")


def wait_for_aborts(client: S3Client, bucket: str) -> None:
    """Aborts of dropped writers run one at a time on a separate thread: wait for one more."""
    ended = threading.Event()
    follower = client.put_object(bucket, "follower").stream
    follower._upload.abort = lambda seconds=None: ended.set()  # type: ignore[method-assign]
    with pytest.warns(ResourceWarning, match="follower"):
        del follower
    assert ended.wait(30)


@pytest.fixture(params=SIZES)
def key(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_an_exception_in_the_with_block_aborts(client: S3Client, saved: str, proxy: RecordingProxy, key: str) -> None:
    proxy.misbehave = begun = Begun(key)
    writer = writer_of(client_of(proxy.endpoint), saved, key)
    with pytest.raises(ZeroDivisionError):
        write_and_raise(writer, noise(SIZES[key]), ZeroDivisionError(), begun)
    assert writer.closed
    assert_upload_created(proxy, key)
    assert_untouched(client, saved, proxy)
    assert_no_upload_remains(client, saved, proxy)


@pytest.mark.parametrize("zip_format", [True, False])
def test_a_failing_torch_save_aborts(
    client: S3Client, saved: str, proxy: RecordingProxy, key: str, zip_format: bool
) -> None:
    proxy.misbehave = begun = Begun(key)
    checkpoint = S3Checkpoint("us-east-1", proxy.endpoint, SMALL_PARTS)

    def save_twice() -> None:
        with checkpoint.writer(f"s3://{saved}/{key}") as writer:
            weights = torch.zeros(SIZES[key] // 4)
            torch.save(weights, writer, _use_new_zipfile_serialization=zip_format)
            torch.save([weights, Unpicklable(begun)], writer, _use_new_zipfile_serialization=zip_format)

    with pytest.raises(pickle.PicklingError, match="as the test says"):
        save_twice()
    assert_upload_created(proxy, key)
    assert_untouched(client, saved, proxy)
    assert_no_upload_remains(client, saved, proxy)


def test_del_without_close_warns_and_aborts(client: S3Client, saved: str, proxy: RecordingProxy, key: str) -> None:
    abort_arrived, begun = threading.Event(), Begun(key)
    proxy.misbehave = lambda request: abort_arrived.set() if is_abort(request) else begun(request)
    sender = client_of(proxy.endpoint)
    writer = writer_of(sender, saved, key)
    writer.write(noise(SIZES[key]))
    begun.wait()
    with pytest.warns(ResourceWarning, match=rf"{saved}/{key}.*dropped without close\(\): it is aborted"):
        del writer  # no garbage collection is needed
    assert key == "small" or abort_arrived.wait(30)
    wait_for_aborts(sender, saved)
    assert_upload_created(proxy, key)
    assert_untouched(client, saved, proxy)
    assert_no_upload_remains(client, saved, proxy)


def test_abort_by_the_program(client: S3Client, saved: str, proxy: RecordingProxy, key: str) -> None:
    proxy.misbehave = begun = Begun(key)
    writer = writer_of(client_of(proxy.endpoint), saved, key)
    writer.write(noise(SIZES[key]))
    begun.wait()
    writer.abort()
    writer.abort()
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.write(b"more")
    assert_upload_created(proxy, key)
    assert_untouched(client, saved, proxy)
    assert_no_upload_remains(client, saved, proxy)


def test_abort_does_not_wait_for_a_silent_server(client: S3Client, saved: str, proxy: RecordingProxy) -> None:
    proxy.misbehave = parts = PartsSeen(stall=True)
    writer = writer_of(client_of(proxy.endpoint), saved, "large")
    writer.write(noise(SIZES["large"]))
    assert parts.arrived.wait(30)
    writer.abort()  # there is no response to stalled parts: this returns all the same
    assert_untouched(client, saved, proxy)
    assert len(matching(proxy, is_abort)) == 1


def test_abort_while_another_thread_writes(client: S3Client, saved: str, proxy: RecordingProxy) -> None:
    """The writer waits for memory, which it gets and must give back; it learns that there is nothing to write to."""
    proxy.misbehave = PartsSeen(stall=True)
    sender = client_of(proxy.endpoint, S3ClientConfig(part_size=PART, memory_budget=3 * PART))
    budget = sender._runtime().budget
    writer = writer_of(sender, saved, "large")
    errors: list[type[BaseException]] = []

    def write() -> None:
        try:
            writer.write(bytearray(SIZES["large"]))
        except S3Exception as error:
            errors.append(type(error))

    writing = threading.Thread(target=write)
    writing.start()
    wait_until(lambda: budget.waiting > 0)
    writer.stream.abort()
    writing.join(30)
    assert errors == [S3UploadAbortedError]
    assert budget.taken == 0
    assert_untouched(client, saved, proxy)


def test_abort_waits_for_a_completion_under_way(client: S3Client, saved: str, proxy: RecordingProxy, key: str) -> None:
    """The server has all of it: what it makes of that must be known when ``abort`` returns."""
    arrived, aborted = threading.Event(), threading.Event()

    def slow(request: ReceivedRequest) -> None:
        if is_put(request) or is_complete(request):
            arrived.set()
            aborted.wait(0.5)

    proxy.misbehave = slow
    writer = writer_of(client_of(proxy.endpoint), saved, key)
    data = noise(SIZES[key])
    writer.write(data)
    closing = threading.Thread(target=writer.stream.close)
    closing.start()
    assert arrived.wait(30)
    writer.stream.abort()
    at_once = read_back(client, saved, key)
    aborted.set()
    closing.join(30)
    assert at_once == read_back(client, saved, key) == data
    assert "completed" in repr(writer.stream)
    assert not matching(proxy, is_abort)


def test_abort_prevents_the_retry_of_a_refused_put(client: S3Client, saved: str, proxy: RecordingProxy) -> None:
    arrived = threading.Event()
    # With a pause in which the abort comes.
    refusal = s3_error(503, "SlowDown").replace(b"\r\n", b"\r\nRetry-After: 60\r\n", 1)

    def unavailable(request: ReceivedRequest) -> Fault | None:
        if not is_put(request):
            return None
        arrived.set()
        return Replace(refusal)

    proxy.misbehave = unavailable
    writer = writer_of(client_of(proxy.endpoint), saved, "small")
    writer.write(b"new")
    errors: list[type[BaseException]] = []

    def close() -> None:
        try:
            writer.stream.close()
        except S3Exception as error:
            errors.append(type(error))

    closing = threading.Thread(target=close)
    closing.start()
    assert arrived.wait(30)
    writer.stream.abort()
    count = len(proxy.exchanges)
    closing.join(30)
    assert errors == [S3UploadAbortedError]
    assert len(proxy.exchanges) == count
    assert read_back(client, saved, "small") == PREVIOUS


_INTERRUPTED = {module.__file__ for module in (_put_object_stream, _upload, _abandoned_uploads, _part_buffer)}


def interrupted_at(number: int, action: Callable[[], object]) -> str | None:
    """Ctrl-C at the n-th call of a function of uploads by ``action``: which; None if there are fewer calls."""
    left = number
    struck: str | None = None

    def strike(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal left, struck
        code = frame.f_code  # these two are called by the finaliser of an earlier writer
        left -= event == "call" and code.co_filename in _INTERRUPTED and code.co_name not in ("__del__", "is_open")
        if not left:
            sys.settrace(None)
            struck = code.co_name
            raise KeyboardInterrupt

    before = sys.gettrace()
    sys.settrace(strike)
    try:
        action()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return struck


@pytest.mark.parametrize(
    "action",
    [lambda writer: writer.write(b"more"), lambda writer: writer.close(), lambda writer: writer.stream.abort()],
    ids=["write", "close", "abort"],
)
def test_an_interrupt_at_any_call_leaves_nothing(
    client: S3Client, saved: str, proxy: RecordingProxy, action: Callable[[S3Writer], object]
) -> None:
    sender = client_of(proxy.endpoint)
    struck: list[str] = []
    while True:
        writer = writer_of(sender, saved, "large")
        writer.write(bytes(PART + 1))
        assert writer.stream._upload._upload_id is not None
        writer.stream._upload._upload_id.result()
        point = interrupted_at(len(struck) + 1, partial(action, writer))
        writer.stream.abort()  # as the end of the ``with`` block does
        assert writer.stream._upload not in _abandoned_uploads._open, struck
        assert sender._runtime().budget.taken == 0, struck
        assert uploads_of(client, saved) == [], struck
        if point is None:
            break
        struck.append(point)
    assert len(struck) > 3


@pytest.mark.parametrize("end", [lambda writer: writer.write(b"more"), lambda writer: writer.stream.close()])
def test_a_write_inside_a_write_is_refused_and_stores_nothing(
    client: S3Client, saved: str, monkeypatch: pytest.MonkeyPatch, end: Callable[[S3Writer], object]
) -> None:
    """As by a signal handler: some of what the outer one writes is yet missing."""
    writer = writer_of(client, saved, "small")
    monkeypatch.setattr(writer.stream._upload.filling, "add", lambda *_, **__: end(writer))
    with pytest.raises(RuntimeError, match="on the same thread"):
        writer.write(b"new")
    with pytest.raises(S3UploadAbortedError, match="on the same thread"):
        writer.close()
    assert read_back(client, saved, "small") == PREVIOUS


def test_a_failed_save_can_be_tried_again(client: S3Client, saved: str, key: str) -> None:
    writer = writer_of(client, saved, key)
    with pytest.raises(S3Exception, match="as the test says"):
        write_and_raise(writer, noise(SIZES[key]), S3Exception("as the test says"), Begun("small"))
    assert read_back(client, saved, key) == PREVIOUS
    data = save(client, saved, SIZES[key], key)
    assert read_back(client, saved, key) == data
