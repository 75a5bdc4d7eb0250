"""Operations that take long show their progress on a terminal; nothing else is ever written to stderr."""

from __future__ import annotations

import io
import math
import multiprocessing
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import wraps
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from tqdm import tqdm

from s3torchconnector import S3Checkpoint, S3CheckpointManager, S3ClientConfig, S3Manifest, _progress, _progress_display
from s3torchconnector._progress import Progress
from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer.listing import _parallel_listing
from s3torchconnector.dcp import S3StorageReader, S3StorageWriter
from s3torchconnector.testing import S3Server
from tests.reading.support import client_of, wait_until
from tests.reading.test_reader_fork import Child
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.proxy import Fault, RecordingProxy, StallBody
from tests.servers.scripted import ScriptedServer, Send, Stall
from tests.terminal import Terminal

REGION = "us-east-1"
KEYS = [f"some/prefix/{number:03}" for number in range(300)]
LARGE = {"weight": torch.arange(6_000_000, dtype=torch.float32)}  # 24 MB: three parts


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """For ``on_terminal``. Operations are shown at once."""
    monkeypatch.setattr(_progress, "_SHOWN_AFTER", -1.0)
    monkeypatch.setattr(_progress_display, "_EVERY", 0.01)
    monkeypatch.setattr(_parallel_listing, "_SHOWN_AFTER", -1.0)
    with Terminal() as terminal:
        yield terminal
        _progress_display._display.end()
        _progress_display._display = _progress_display.Display()


def on_terminal(test: Callable[..., None]) -> Callable[..., None]:
    """Have the test's terminal as ``sys.stderr``, which pytest sets when a test begins."""

    @wraps(test)
    def run(**fixtures: Any) -> None:
        before, sys.stderr = sys.stderr, fixtures["terminal"].stream
        try:
            test(**fixtures)
        finally:
            sys.stderr = before

    return run


def held(method: str, number: int, release: threading.Event) -> Callable[[ReceivedRequest], Fault | None]:
    """The ``number``-th request for a part has no response until then."""
    seen: list[ReceivedRequest] = []

    def hook(request: ReceivedRequest) -> Fault | None:
        if request.method == method and (method == "GET" or "partNumber" in request.query):
            seen.append(request)
        return StallBody(release) if len(seen) == number and seen[-1] is request else None

    return hook


# -- listings and manifests --------------------------------------------------------------------------------------------


def page(request: ReceivedRequest) -> bytes:
    """A hundred keys."""
    after = request.query.get("continuation-token", request.query.get("start-after", ""))
    rest = [key for key in KEYS if key > after]
    facts = "<Size>1</Size><ETag>e</ETag><LastModified>2026-01-01T00:00:00Z</LastModified>"
    entries = "".join(f"<Contents><Key>{key}</Key>{facts}</Contents>" for key in rest[:100])
    more = "false</IsTruncated>"
    if rest[100:]:
        more = f"true</IsTruncated><NextContinuationToken>{rest[99]}</NextContinuationToken>"
    return response(200, f"<ListBucketResult><IsTruncated>{more}{entries}</ListBucketResult>".encode())


def listed(client: S3Client) -> list[str]:
    return [key for page in client.list_all("bucket", "some/prefix/") for key in page.keys]


@on_terminal
def test_a_long_listing_shows_its_keys_and_clears_the_line(terminal: Terminal) -> None:
    is_shown = terminal.shows(pattern := r"listing s3://bucket/some/prefix/: [12]\d\d keys \[")

    def slow(request: ReceivedRequest) -> object:
        return [Stall(is_shown), Send(found)] if KEYS[-1].encode() in (found := page(request)) else found

    with ScriptedServer(handler=slow) as server, client_of(server.endpoint, unsigned=True) as client:  # type: ignore[arg-type]
        assert listed(client) == KEYS
    assert terminal.wait_for(pattern, 0)
    assert terminal.wait_until_cleared()


@on_terminal
def test_a_line_counts_until_the_pages_are_abandoned(terminal: Terminal) -> None:
    with ScriptedServer(handler=page) as server, client_of(server.endpoint, unsigned=True) as client:
        pages = client.list_all("bucket", "some/prefix/")
        assert len(next(pages)) == 100
        assert terminal.wait_for("prefix/: 100 keys")
        assert len(next(pages)) == 100
        assert terminal.wait_for("prefix/: 200 keys")
        pages.close()  # type: ignore[attr-defined]
    assert terminal.wait_until_cleared()


@on_terminal
def test_a_failed_listing_clears_the_line_before_the_error(terminal: Terminal) -> None:
    is_shown = terminal.shows(pattern := "listing")

    def without_the_last_page(request: ReceivedRequest) -> object:
        found, denied = page(request), Send(s3_error(403, "AccessDenied"))
        return [Stall(is_shown), denied] if KEYS[-1].encode() in found else found

    with ScriptedServer(handler=without_the_last_page) as server:  # type: ignore[arg-type]
        with client_of(server.endpoint, unsigned=True) as client, pytest.raises(PermissionError) as caught:
            listed(client)
        assert terminal.wait_for(pattern, 0)
        assert terminal.wait_until_cleared()
        assert caught.value.__traceback__ is not None  # which keeps all that the listing had


@on_terminal
def test_a_manifest_shows_its_archives(
    terminal: Terminal, bucket: str, proxy: RecordingProxy, s3_server: S3Server
) -> None:
    for number in range(3):
        (s3_server.folder / bucket / f"{number}.tar").write_bytes(bytes(10240))
    is_shown = terminal.shows(pattern := r"indexing archives: +\d+%\|.*/3 ")
    proxy.misbehave = lambda request: StallBody(is_shown) if request.path.endswith("2.tar") else None
    S3Manifest.from_tar(f"s3://{bucket}/", region=REGION, endpoint=proxy.endpoint)
    assert terminal.wait_for(pattern, 0)
    assert terminal.wait_until_cleared()


# -- loads and saves ---------------------------------------------------------------------------------------------------


def save_with_torch(uri: str, endpoint: str) -> None:
    with S3Checkpoint(REGION, endpoint).writer(uri) as writer:
        torch.save(LARGE, writer)


def load_with_torch(uri: str, endpoint: str) -> None:
    with S3Checkpoint(REGION, endpoint).reader(uri) as reader:
        assert torch.equal(torch.load(reader)["weight"], LARGE["weight"])


def save_safetensors(uri: str, endpoint: str) -> None:
    S3Checkpoint(REGION, endpoint).save_safetensors(LARGE, uri)


def load_safetensors(uri: str, endpoint: str) -> None:
    assert torch.equal(S3Checkpoint(REGION, endpoint).load_safetensors(uri)["weight"], LARGE["weight"])


def save_managed(uri: str, endpoint: str) -> None:
    with_manager = S3CheckpointManager(uri, REGION, endpoint=endpoint)
    with_manager.save(1, LARGE)
    with_manager.close()


def load_managed(uri: str, endpoint: str) -> None:
    with_manager = S3CheckpointManager(uri, REGION, endpoint=endpoint)
    assert torch.equal(with_manager.load(1)["weight"], LARGE["weight"])
    with_manager.close()


def save_distributed(uri: str, endpoint: str) -> None:
    dcp.save(dict(LARGE), storage_writer=S3StorageWriter(REGION, uri, endpoint=endpoint))


def load_distributed(uri: str, endpoint: str) -> None:
    state = {"weight": torch.zeros(6_000_000)}
    dcp.load(state, storage_reader=S3StorageReader(REGION, uri, endpoint=endpoint))
    assert torch.equal(state["weight"], LARGE["weight"])


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
@pytest.mark.parametrize(
    ("save", "load"),
    [
        (save_with_torch, load_with_torch),
        (save_safetensors, load_safetensors),
        (save_managed, load_managed),
        (save_distributed, load_distributed),
    ],
)
@on_terminal
def test_a_long_save_and_load_show_their_bytes(
    terminal: Terminal, bucket: str, proxy: RecordingProxy,
    save: Callable[[str, str], None], load: Callable[[str, str], None],
) -> None:  # fmt: skip
    uri = f"s3://{bucket}/it"
    is_shown = terminal.shows(pattern := r"saving .*[1-9][\d.]*MB?[ /].*\[")
    proxy.misbehave = held("PUT", 3, is_shown)
    save(uri, proxy.endpoint)
    assert terminal.wait_for(pattern, 0)
    assert terminal.wait_until_cleared()
    is_shown = terminal.shows(pattern := r"(loading|reading) .*: +\d+%\|.*[1-9][\d.]*M/2\d.\dM ")
    proxy.misbehave = held("GET", 4, is_shown)
    load(uri, proxy.endpoint)
    assert terminal.wait_for(pattern, 0)
    assert terminal.wait_until_cleared()


@on_terminal
def test_small_objects_start_no_thread(terminal: Terminal, bucket: str, s3_server: S3Server) -> None:
    checkpoint = S3Checkpoint(REGION, s3_server.endpoint)
    for number in range(3):
        with checkpoint.writer(f"s3://{bucket}/{number}") as writer:
            writer.write(bytes(100_000))
        with checkpoint.reader(f"s3://{bucket}/{number}") as reader:
            assert reader.read() == bytes(100_000)
    assert _progress_display._display._thread is None
    assert terminal.written == ""


@on_terminal
def test_a_reader_that_is_used_now_and_then_is_not_shown(
    terminal: Terminal, bucket: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seconds between two uses are not those of an operation."""
    (s3_server.folder / bucket / "large").write_bytes(bytes(20_000_000))
    monkeypatch.setattr(_progress, "_SHOWN_AFTER", 3600.0)
    monkeypatch.setattr("s3torchconnector._transfer.reading._counted_object._PAUSE", -1.0)
    with S3Checkpoint(REGION, s3_server.endpoint).reader(f"s3://{bucket}/large") as reader:
        reader.read(10)
        progress = reader._object._version.progress  # type: ignore[attr-defined]
        progress._started -= 7200.0
        reader.seek(-100, 2)
        reader.read(100)
        assert not progress.is_long


# -- the switch --------------------------------------------------------------------------------------------------------


class File(io.StringIO):
    """A standard error that is no terminal."""

    def isatty(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("switch", "variable", "is_terminal", "expected"),
    [
        (None, None, True, True),
        (None, None, False, False),
        (None, "1", False, True),
        (None, "0", True, False),
        (None, "perhaps", True, True),
        (True, "0", False, True),
        (False, "1", True, False),
    ],
)
@on_terminal
def test_the_configuration_decides_then_the_environment_then_the_terminal(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch,
    switch: bool | None, variable: str | None, is_terminal: bool, expected: bool,
) -> None:  # fmt: skip
    if variable is not None:
        monkeypatch.setenv("S3TORCHCONNECTOR_PROGRESS", variable)
    if not is_terminal:
        sys.stderr = file = File()
    with Progress(switch, "doing it", "steps") as progress:
        progress.advance(1)
        if expected and is_terminal:
            assert terminal.wait_for(r"doing it: 1.00 steps \[")
        elif expected:
            wait_until(lambda: "doing it: 1.00 steps [" in file.getvalue())
            assert progress.line is not None
            assert progress.line.bar.mininterval == 10.0  # seconds: a file keeps every line
        else:
            assert _progress_display._display._thread is None
    if not expected:
        assert (terminal.written if is_terminal else file.getvalue()) == ""


@on_terminal
def test_the_configuration_reaches_the_operations(terminal: Terminal) -> None:
    with ScriptedServer(handler=page) as server, client_of(server.endpoint, unsigned=True, progress=False) as client:
        assert listed(client) == KEYS
    assert _progress_display._display._thread is None
    with pytest.raises(ValueError, match="progress must be True, False or None: progress=1"):
        S3ClientConfig(progress=1)  # type: ignore[arg-type]


@on_terminal
def test_a_short_operation_shows_nothing(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_parallel_listing, "_SHOWN_AFTER", math.inf)
    with ScriptedServer(handler=page) as server, client_of(server.endpoint, unsigned=True) as client:
        assert listed(client) == KEYS
    assert terminal.written == ""


@on_terminal
def test_a_program_may_have_no_stderr(terminal: Terminal) -> None:
    sys.stderr = None  # type: ignore[assignment]
    with Progress(True, "doing it", "steps") as progress:
        progress.advance(1)
    assert _progress_display._display._thread is None


@on_terminal
def test_only_the_main_thread_of_rank_0_shows_something(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(_progress.is_shown_here(True)))
    thread.start()
    thread.join()
    assert found == [False]
    monkeypatch.setenv("RANK", "1")
    assert not _progress.is_shown_here(True)
    monkeypatch.setenv("RANK", "0")
    assert _progress.is_shown_here(True)


@on_terminal
def test_workers_show_nothing(terminal: Terminal) -> None:
    assert Child(lambda: repr(_progress.is_shown_here(True)).encode()).result() == b"False"
    with multiprocessing.get_context("forkserver").Pool(1) as pool:
        assert pool.apply(_progress.is_shown_here, (True,)) is False


# -- what may go wrong -------------------------------------------------------------------------------------------------


@on_terminal
def test_a_forked_child_leaves_the_line_to_its_parent(terminal: Terminal) -> None:
    with Progress(None, "doing it", "steps") as progress:
        progress.advance(1000)
        assert terminal.wait_for(r"doing it: 1.00k steps \[")

        def in_child() -> bytes:
            progress.advance(1_000_000)
            progress.close()
            return repr((progress.line is not None, _progress_display._display._thread)).encode()

        assert Child(in_child).result() == b"(True, None)"
        progress.advance(1000)
        assert terminal.wait_for(r"doing it: 2.00k steps \[")
        assert "M steps" not in terminal.written
    assert terminal.wait_until_cleared()


@on_terminal
def test_a_forked_child_shows_nothing_of_what_its_parent_has_begun(terminal: Terminal) -> None:
    progress = Progress(None, "doing it", "steps")

    def in_child() -> bytes:
        progress.advance(1)
        return repr((progress.line, _progress_display._display._thread)).encode()

    assert Child(in_child).result() == b"(None, None)"


@on_terminal
def test_an_output_that_takes_nothing_does_not_matter(terminal: Terminal) -> None:
    """Such as a terminal that was closed."""
    with suppress(OSError), open("/dev/full", "w") as sys.stderr:
        with Progress(True, "doing it", "steps") as progress:
            progress.advance(1)
            line = progress.line
            assert line is not None
            assert line.is_cleared.wait(30.0)
            progress.advance(1)
        assert _progress_display._display._lines == {}
    lock = tqdm.get_lock().mp_lock  # which a program's own bars take, too
    assert lock.acquire(timeout=30.0)
    lock.release()


@on_terminal
def test_no_fork_waits_for_a_program_that_keeps_tqdms_lock(terminal: Terminal) -> None:
    """Such as one whose own bar is written to a suspended terminal."""
    with Progress(None, "doing it", "steps") as progress:
        progress.advance(1)
        assert terminal.wait_for("doing it")
        with tqdm.get_lock():
            progress.advance(1)
            thread = _progress_display._display._thread
            assert thread is not None
            wait_until(lambda: sys._current_frames()[thread].f_code.co_name == "acquire")
            began = time.monotonic()
            assert Child(lambda: b"forked").result() == b"forked"
            assert time.monotonic() - began < 5.0  # and not the ten seconds that a fork waits for others at most


@on_terminal
def test_a_suspended_terminal_delays_an_operation_by_a_second(terminal: Terminal) -> None:
    progress = Progress(None, "doing it", "steps")
    progress.advance(1)
    assert terminal.wait_for("doing it")
    terminal.suspend()
    began = time.monotonic()
    for _ in range(1000):
        progress.advance(1)
    assert time.monotonic() - began < 0.5
    progress.close()
    assert time.monotonic() - began < 15.0
    terminal.resume()
    assert terminal.wait_until_cleared()


@on_terminal
def test_the_end_of_the_process_clears_the_line(terminal: Terminal) -> None:
    progress = Progress(None, "doing it", "steps")
    progress.advance(1)
    assert terminal.wait_for("doing it")
    _progress_display._display.end()
    assert terminal.wait_until_cleared()
    progress.close()


@on_terminal
def test_a_long_uri_leaves_room_for_the_figures(terminal: Terminal) -> None:
    with Progress(None, "reading s3://bucket/" + "a/" * 100 + "model.pt", total=100) as progress:
        progress.advance(50)
        assert terminal.wait_for(r"reading s3://bucket/a/.*…[a/]+model.pt: +50%\|")
