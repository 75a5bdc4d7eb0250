"""A checkpoint is complete or invisible, and saving again does not touch it before the new one is complete."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata

from s3torchconnector._s3client import S3Client
from tests.dcp.support import CONFIG, keys_of, load, same, writer_of
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.moto_server import MotoServer
from tests.servers.proxy import Fault, LoseResponse, RecordingProxy, Replace, StallBody, first

OLD = {"a": torch.full((50, 50), 1.0), "b": [1], "c": torch.full((3,), 1)}
NEW = {"a": torch.full((50, 50), 2.0), "b": [2], "c": torch.full((3,), 2)}


@pytest.fixture
def moto(moto_server: MotoServer) -> Iterator[RecordingProxy]:
    """In front of a server that honours ``If-None-Match``, as rclone does not."""
    with RecordingProxy(moto_server.endpoint) as proxy:
        yield proxy


def is_commit(request: ReceivedRequest) -> bool:
    return request.method == "PUT" and request.path.endswith("/x/.metadata")


def save(bucket: str, state: dict[str, Any], proxy: RecordingProxy, **options: Any) -> None:
    dcp.save(state, storage_writer=writer_of(f"s3://{bucket}/x", endpoint=proxy.endpoint, **options))


def is_deletion(request: ReceivedRequest) -> bool:
    return request.method == "DELETE" or "delete" in request.query


def loaded(bucket: str) -> dict[str, Any]:
    return load(f"s3://{bucket}/x", OLD)


def test_data_first_then_one_put_then_old_files_are_deleted(bucket: str, proxy: RecordingProxy) -> None:
    save(bucket, OLD, proxy, thread_count=2)
    old = set(keys_of(bucket)) - {"x/.metadata"}
    before = len(proxy.exchanges)
    save(bucket, NEW, proxy, thread_count=2)
    seen = [(each.method, each.path.removeprefix(f"/{bucket}/")) for each in proxy.exchanges[before:]]
    new = set(keys_of(bucket)) - {"x/.metadata"}
    assert not new & old
    assert sorted(seen[:3]) == sorted([*(("PUT", name) for name in new), ("GET", "x/.metadata")])
    assert seen[3] == ("PUT", "x/.metadata")
    assert seen[4] == ("HEAD", "x/.metadata")  # before anything is deleted
    assert seen[5:] == [("POST", f"/{bucket}")]  # DeleteObjects
    assert not old & set(keys_of(bucket))
    assert same(loaded(bucket), NEW)


def test_the_commit_to_replace_is_looked_up_during_the_upload(bucket: str, proxy: RecordingProxy) -> None:
    asked = threading.Event()
    in_time: list[bool] = []

    def misbehave(request: ReceivedRequest) -> None:
        if request.method == "GET":
            asked.set()
        elif ".distcp" in request.path:
            in_time.append(asked.wait(30))

    proxy.misbehave = misbehave
    save(bucket, NEW, proxy)
    assert in_time == [True]
    assert same(loaded(bucket), NEW)


def test_at_most_thread_count_files_are_written_at_a_time(bucket: str, proxy: RecordingProxy) -> None:
    """Looking for the previous commit has its own thread, and no file gets that thread."""
    writing: list[int] = []
    most: list[int] = []
    begun = threading.Event()

    def misbehave(request: ReceivedRequest) -> None:
        if ".distcp" in request.path and request.method == "PUT":
            writing.append(1)
            if len(writing) > 2:
                begun.set()
            most.append(len(writing))
            begun.wait(0.3)  # a third file would come
            writing.pop()

    proxy.misbehave = misbehave
    state = {str(number): torch.full((50, 50), float(number)) for number in range(6)}
    save(bucket, state, proxy, thread_count=2, single_file_per_rank=False)
    assert len(most) == 6
    assert max(most) == 2


def test_without_overwrite_the_commit_checks_again(bucket: str, proxy: RecordingProxy) -> None:
    save(bucket, NEW, proxy, overwrite=False)
    seen = [(each.method, each.path.rpartition(".")[2]) for each in proxy.exchanges]
    assert seen == [("HEAD", "metadata"), ("PUT", "distcp"), ("HEAD", "metadata"), ("PUT", "metadata")]


@pytest.mark.parametrize("refused", [".distcp", ".metadata"])
def test_a_save_that_fails_leaves_the_checkpoint_alone(bucket: str, proxy: RecordingProxy, refused: str) -> None:
    save(bucket, OLD, proxy)
    before = keys_of(bucket)
    proxy.misbehave = lambda request: (
        Replace(s3_error(403, "AccessDenied")) if request.method == "PUT" and refused in request.path else None
    )
    with pytest.raises(CheckpointException, match="AccessDenied"):
        save(bucket, NEW, proxy, thread_count=2)
    assert same(loaded(bucket), OLD)
    if refused == ".distcp":
        assert keys_of(bucket) == before


def test_an_error_while_serialising_stores_nothing(bucket: str, proxy: RecordingProxy) -> None:
    class Unpicklable:
        def __reduce__(self) -> Any:
            raise KeyError("cannot be pickled")

    save(bucket, OLD, proxy)
    before = keys_of(bucket)
    with pytest.raises(CheckpointException, match="cannot be pickled"):
        save(bucket, {**NEW, "d": Unpicklable()}, proxy, thread_count=3)
    assert keys_of(bucket) == before
    assert same(loaded(bucket), OLD)


def test_a_file_stored_while_another_one_fails_is_deleted(bucket: str, proxy: RecordingProxy) -> None:
    """The server stores a complete PUT late. If the file were deleted before that, it would remain forever."""
    arrived, deleted = threading.Event(), threading.Event()

    class Unpicklable:
        def __reduce__(self) -> Any:
            assert arrived.wait(30)
            raise KeyError("cannot be pickled")

    def slow(request: ReceivedRequest) -> None:
        if request.method == "PUT":
            arrived.set()
            deleted.wait(0.5)
        elif is_deletion(request):
            deleted.set()

    proxy.misbehave = slow
    with pytest.raises(CheckpointException, match="cannot be pickled"):
        save(bucket, {"a": torch.ones(50), "b": torch.ones(50), "d": Unpicklable()}, proxy, thread_count=2)
    assert arrived.is_set()
    assert keys_of(bucket) == []


def test_the_first_failure_aborts_the_other_uploads(bucket: str, proxy: RecordingProxy) -> None:
    """One file's part is stalled until the save has failed because of the other."""
    release = threading.Event()

    def hook(request: ReceivedRequest) -> Fault | None:
        if request.method == "PUT" and "partNumber" in request.query:
            return StallBody(release)
        if request.method == "PUT":
            return Replace(s3_error(403, "AccessDenied"))
        return None

    proxy.misbehave = hook
    large = {"large": torch.zeros(3000, 1000), "small": torch.ones(3)}
    try:
        with pytest.raises(CheckpointException, match="AccessDenied"):
            save(bucket, large, proxy, thread_count=2)
    finally:
        release.set()
    assert keys_of(bucket) == []
    assert not [each for each in proxy.of("POST") if "uploadId" in each.query]  # none was completed


def test_overwrite_can_be_refused(bucket: str, proxy: RecordingProxy) -> None:
    save(bucket, OLD, proxy, overwrite=False)
    before = keys_of(bucket)
    with pytest.raises(CheckpointException, match=r"Checkpoint already exists and self\.overwrite=False"):
        save(bucket, NEW, proxy, overwrite=False)
    assert keys_of(bucket) == before
    assert same(loaded(bucket), OLD)


def test_a_checkpoint_appearing_during_a_save_is_not_overwritten(bucket: str, proxy: RecordingProxy) -> None:
    def other_save(request: ReceivedRequest) -> None:
        if request.method == "PUT":
            proxy.misbehave = lambda request: None
            dcp.save(OLD, storage_writer=writer_of(f"s3://{bucket}/x"))

    proxy.misbehave = other_save
    with pytest.raises(CheckpointException, match="Checkpoint already exists"):
        save(bucket, NEW, proxy, overwrite=False)
    assert same(loaded(bucket), OLD)
    assert len(keys_of(bucket)) == 2


def test_of_two_saves_that_found_no_checkpoint_one_succeeds(
    moto_bucket: str, moto: RecordingProxy, moto_server: MotoServer
) -> None:
    """The other one commits when this one has looked for the last time."""
    path, theirs = f"s3://{moto_bucket}/x", []

    def be_faster(request: ReceivedRequest) -> None:
        if is_commit(request):
            before = set(keys_of(moto_bucket, endpoint=moto_server.endpoint))
            dcp.save(OLD, storage_writer=writer_of(path, endpoint=moto_server.endpoint, overwrite=False))
            theirs.extend(set(keys_of(moto_bucket, endpoint=moto_server.endpoint)) - before)

    moto.misbehave = be_faster
    with pytest.raises(CheckpointException, match=r"Checkpoint already exists and self\.overwrite=False"):
        save(moto_bucket, NEW, moto, overwrite=False)
    assert same(load(path, OLD, endpoint=moto_server.endpoint), OLD)
    assert keys_of(moto_bucket, endpoint=moto_server.endpoint) == sorted(theirs)


def test_a_commit_whose_response_is_lost_succeeds(moto_bucket: str, moto: RecordingProxy) -> None:
    moto.misbehave = first(1, LoseResponse(), when=is_commit)
    save(moto_bucket, NEW, moto, overwrite=False)
    assert same(load(f"s3://{moto_bucket}/x", OLD, endpoint=moto.endpoint), NEW)


def test_files_are_kept_if_the_commit_may_be_this_saves(moto_bucket: str, moto: RecordingProxy) -> None:
    """The response was lost, and HEAD is denied, so the save cannot know that the ``.metadata`` there is its own."""
    lost = threading.Event()

    def hook(request: ReceivedRequest) -> Fault | None:
        if is_commit(request) and not lost.is_set():
            lost.set()
            return LoseResponse()
        return Replace(response(403)) if request.method == "HEAD" and lost.is_set() else None

    moto.misbehave = hook
    with pytest.raises(CheckpointException, match="Checkpoint already exists"):
        save(moto_bucket, NEW, moto, overwrite=False)
    assert same(load(f"s3://{moto_bucket}/x", OLD, endpoint=moto.endpoint), NEW)


def test_files_that_cannot_be_deleted_do_not_fail_the_save(
    bucket: str, proxy: RecordingProxy, caplog: pytest.LogCaptureFixture
) -> None:
    save(bucket, OLD, proxy, thread_count=2)
    old = set(keys_of(bucket)) - {"x/.metadata"}
    proxy.misbehave = lambda request: Replace(s3_error(403, "AccessDenied")) if is_deletion(request) else None
    with caplog.at_level(logging.WARNING, "s3torchconnector"):
        save(bucket, NEW, proxy, thread_count=2)
    assert caplog.text.count("could not be deleted") == len(old) == 2
    assert same(loaded(bucket), NEW)


def test_unreadable_metadata_is_replaced(bucket: str, proxy: RecordingProxy) -> None:
    writer = writer_of(f"s3://{bucket}/x")
    with writer.fs.create_stream(f"s3://{bucket}/x/.metadata", "wb") as stream:
        stream.write(b"no pickle")
    save(bucket, NEW, proxy)
    assert same(loaded(bucket), NEW)


def test_a_planner_that_caches_plans_gets_new_file_names(bucket: str, proxy: RecordingProxy) -> None:
    from torch.distributed.checkpoint.default_planner import DefaultSavePlanner

    names = []
    for state in (OLD, NEW, OLD):
        planner = DefaultSavePlanner(enable_plan_caching=True)
        writer = writer_of(f"s3://{bucket}/x", s3client_config=CONFIG)
        dcp.save(state, storage_writer=writer, planner=planner)
        assert same(loaded(bucket), state)
        names.append([key for key in keys_of(bucket) if key.endswith(".distcp")])
    assert len({name for each in names for name in each}) == 3


def _refused(request: ReceivedRequest) -> bool:
    return request.method == "GET" and request.path.endswith("/x/.metadata")


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (500, "InternalError"), (400, "InvalidRequest")])
def test_an_unreadable_commit_is_replaced(
    bucket: str, proxy: RecordingProxy, caplog: pytest.LogCaptureFixture, status: int, code: str
) -> None:
    """The files that it names remain: better than to lose a save for files that should be deleted."""
    save(bucket, OLD, proxy)
    old = set(keys_of(bucket))
    proxy.misbehave = lambda request: Replace(s3_error(status, code)) if _refused(request) else None
    save(bucket, NEW, proxy)
    assert "x/.metadata cannot be read, and is replaced anyway" in caplog.text
    assert code in caplog.text
    assert same(loaded(bucket), NEW)
    assert old <= set(keys_of(bucket))


def test_overwrite_false_saves_without_read_permission(bucket: str, proxy: RecordingProxy) -> None:
    """Without permission to list, S3 responds 403 for a missing key."""
    proxy.misbehave = lambda request: Replace(response(403)) if request.method == "HEAD" else None
    save(bucket, NEW, proxy, overwrite=False)
    assert same(loaded(bucket), NEW)


def test_files_of_a_refused_commit_are_deleted(bucket: str, proxy: RecordingProxy) -> None:
    save(bucket, OLD, proxy)
    before = keys_of(bucket)
    proxy.misbehave = lambda request: Replace(s3_error(403, "AccessDenied")) if is_commit(request) else None
    with pytest.raises(CheckpointException, match="AccessDenied"):
        save(bucket, NEW, proxy)
    assert keys_of(bucket) == before


def test_files_of_a_commit_that_may_have_happened_remain(bucket: str, proxy: RecordingProxy) -> None:
    save(bucket, OLD, proxy)
    proxy.misbehave = lambda request: LoseResponse() if is_commit(request) else None
    with contextlib.suppress(CheckpointException):
        save(bucket, NEW, proxy)
    proxy.misbehave = lambda request: None
    assert same(loaded(bucket), NEW)


def test_a_server_that_refuses_conditions_stores_without(
    bucket: str, proxy: RecordingProxy, caplog: pytest.LogCaptureFixture
) -> None:
    conditions = {"if-match", "if-none-match"}
    proxy.misbehave = lambda request: (
        Replace(s3_error(501, "NotImplemented")) if is_commit(request) and conditions & set(request.headers) else None
    )
    for state in (OLD, NEW):
        save(bucket, state, proxy)
        assert same(loaded(bucket), state)
    assert caplog.text.count("is stored without a condition, which this server refuses") == 2
    assert len(keys_of(bucket)) == 2


def test_a_commit_is_refused_if_the_previous_one_was_deleted(
    moto_bucket: str, moto: RecordingProxy, moto_server: MotoServer
) -> None:
    save(moto_bucket, OLD, moto)

    def delete(request: ReceivedRequest) -> None:
        if is_commit(request):
            with S3Client("us-east-1", endpoint=moto_server.endpoint) as client:
                client.delete_object(moto_bucket, "x/.metadata")

    moto.misbehave = delete
    with pytest.raises(CheckpointException, match="replaced or deleted while it was under way"):
        save(moto_bucket, NEW, moto)
    moto.misbehave = lambda request: None
    save(moto_bucket, NEW, moto)
    assert same(load(f"s3://{moto_bucket}/x", OLD, endpoint=moto_server.endpoint), NEW)


class _Attack:
    """What makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)

    def __reduce__(self) -> Any:
        return os.mkdir, (self._folder,)


def test_no_save_or_load_runs_code_from_metadata(bucket: str, proxy: RecordingProxy, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with writer_of(f"s3://{bucket}/x").fs.create_stream(f"s3://{bucket}/x/.metadata", "wb") as stream:
        stream.write(pickle.dumps(Metadata({}, planner_data=_Attack(trace))))
    with pytest.raises(CheckpointException, match=r"\.metadata cannot be used: it names posix\.mkdir"):
        loaded(bucket)
    save(bucket, NEW, proxy)
    assert not trace.exists()
    assert same(loaded(bucket), NEW)
