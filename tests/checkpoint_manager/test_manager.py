"""The manager on a real server: what is committed, kept, found damaged, and cleaned."""

from __future__ import annotations

import multiprocessing
import pickle
import re
import threading
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from s3torchconnector import S3CheckpointManager, S3ClientConfig, S3Exception
from s3torchconnector._config import MIB
from s3torchconnector._errors import S3FormatError, S3NotFoundError
from s3torchconnector._s3client import S3Client
from s3torchconnector._wire._checksums import ALGORITHMS
from s3torchconnector.testing import S3Server
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.moto_server import MotoServer
from tests.servers.proxy import RecordingProxy, Replace, StallBody

CONFIG = S3ClientConfig(part_size=5 * MIB, max_attempts=2)
_INITIATED = "<Initiated>2026-01-31T10:20:30.000Z</Initiated>"


def _manager(endpoint: str, bucket: str, **arguments: Any) -> S3CheckpointManager:
    return S3CheckpointManager(
        f"s3://{bucket}/run", "us-east-1", endpoint=endpoint, s3client_config=CONFIG, **arguments
    )


@pytest.fixture
def manager(proxy: RecordingProxy, bucket: str) -> Iterator[S3CheckpointManager]:
    manager = _manager(proxy.endpoint, bucket)
    yield manager
    manager.close()


def _state(step: int, size: int = 10) -> dict[str, Any]:
    return {"weight": torch.full((size,), float(step)), "step": step}


def _keys(server: S3Server, bucket: str) -> list[str]:
    client = S3Client("us-east-1", endpoint=server.endpoint)
    return [info.key for page in client.list_objects(bucket) for info in page.object_info]


def _is_manifest(request: ReceivedRequest) -> bool:
    return re.search(r"/step-\d{10}\.json$", request.path) is not None


def test_what_was_saved_is_loaded(manager: S3CheckpointManager) -> None:
    assert (manager.latest(), manager.steps()) == (None, [])
    for step in (5, 100, 20):
        manager.save(step, _state(step))
    assert (manager.latest(), manager.steps()) == (100, [5, 20, 100])
    assert manager.load()["step"] == 100
    assert torch.equal(manager.load(20)["weight"], torch.full((10,), 20.0))
    assert manager.load(5, map_location="meta")["weight"].is_meta


def test_data_comes_first_and_the_manifest_last(
    manager: S3CheckpointManager, proxy: RecordingProxy, bucket: str
) -> None:
    manager.save(7, _state(7))
    first, last = (each.path.removeprefix(f"/{bucket}/run/step-0000000007") for each in proxy.of("PUT"))
    assert re.fullmatch("/[0-9a-f]{16}/state.pt", first)
    assert last == ".json"
    assert [each.method for each in proxy.exchanges] == ["PUT", "GET", "GET", "PUT"]


def test_weights_only_is_passed_on(manager: S3CheckpointManager) -> None:
    manager.save(1, {"config": CONFIG})
    with pytest.raises(pickle.UnpicklingError):
        manager.load(1, weights_only=True)
    assert manager.load(1, weights_only=False) == {"config": CONFIG}


def test_a_step_is_replaced_when_the_new_one_is_committed(
    manager: S3CheckpointManager, proxy: RecordingProxy, s3_server: S3Server, bucket: str
) -> None:
    manager.save(1, _state(1))
    before = _keys(s3_server, bucket)
    proxy.misbehave = lambda request: (
        Replace(s3_error(403, "AccessDenied")) if request.method == "PUT" and _is_manifest(request) else None
    )
    with pytest.raises(S3Exception):
        manager.save(1, _state(2))
    assert manager.load(1)["step"] == 1
    proxy.misbehave = lambda request: None
    manager.save(1, _state(3))
    assert manager.load(1)["step"] == 3
    after = _keys(s3_server, bucket)
    assert len(after) == 2  # the objects of the first two saves were deleted
    assert set(before) & set(after) == {"run/step-0000000001.json"}


def test_old_checkpoints_are_deleted_after_the_commit(proxy: RecordingProxy, bucket: str, s3_server: S3Server) -> None:
    manager = _manager(proxy.endpoint, bucket, keep_last=2, keep_every=10)
    for step in range(8, 16):
        proxy.exchanges.clear()
        manager.save(step, _state(step))
        deleted = [number for number, each in enumerate(proxy.exchanges) if each.method == "DELETE"]
        committed = [n for n, each in enumerate(proxy.exchanges) if each.method == "PUT" and _is_manifest(each.request)]
        assert all(number > committed[0] for number in deleted)
        if deleted:
            assert _is_manifest(
                proxy.exchanges[deleted[0]].request
            )  # first, so that half a checkpoint is never taken for one
    assert manager.steps() == [10, 14, 15]
    assert len(_keys(s3_server, bucket)) == 6


def test_a_commit_that_fails_deletes_nothing(proxy: RecordingProxy, bucket: str) -> None:
    manager = _manager(proxy.endpoint, bucket, keep_last=1)
    manager.save(1, _state(1))
    proxy.misbehave = lambda request: (
        Replace(s3_error(403, "AccessDenied")) if request.method == "PUT" and _is_manifest(request) else None
    )
    with pytest.raises(S3Exception):
        manager.save(2, _state(2))
    assert manager.load()["step"] == 1


def test_a_deletion_that_fails_does_not_fail_the_save(
    proxy: RecordingProxy, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    manager = _manager(proxy.endpoint, bucket, keep_last=1)
    manager.save(1, _state(1))
    proxy.misbehave = lambda request: Replace(s3_error(403, "AccessDenied")) if request.method == "DELETE" else None
    manager.save(2, _state(2))
    assert "the old checkpoint of step 1 could not be deleted" in caplog.text
    proxy.misbehave = lambda request: None
    manager.save(3, _state(3))
    assert manager.steps() == [3]


def test_a_listing_that_fails_does_not_fail_the_save(
    proxy: RecordingProxy, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    manager = _manager(proxy.endpoint, bucket, keep_last=1)
    manager.save(1, _state(1))
    proxy.misbehave = lambda request: (
        Replace(s3_error(403, "AccessDenied")) if request.query.get("prefix") == "run/" else None
    )
    manager.save(2, _state(2))
    manager.save_async(3, _state(3)).result(timeout=30)
    assert caplog.text.count("old checkpoints were not deleted") == 2
    proxy.misbehave = lambda request: None
    manager.save(4, _state(4))
    assert manager.steps() == [4]


def test_going_back_keeps_checkpoints_saved_afterwards(proxy: RecordingProxy, bucket: str) -> None:
    """Also within one second, in which the times of objects are equal."""
    manager = _manager(proxy.endpoint, bucket, keep_last=1)
    for step in (100, 50):
        manager.save(step, _state(step))
    assert 50 in manager.steps()


def _hold(proxy: RecordingProxy, step: int) -> threading.Event:
    """Hold back the end of a save until the test releases it. A save of many parts sends none of them before."""
    release = threading.Event()
    folder = f"/step-{step:010}/"
    stall = StallBody(release)
    proxy.misbehave = lambda request: stall if request.method in ("PUT", "POST") and folder in request.path else None
    return release


def test_saving_in_the_background_takes_a_copy(manager: S3CheckpointManager, proxy: RecordingProxy) -> None:
    release = _hold(proxy, 1)
    base = torch.zeros(2 * MIB)  # of 8 MiB: several parts
    state = {
        "weight": base,
        "view": base[:10],
        "lists": [base.clone(), {"step": 1}],
        "step": 1,
        "meta": torch.empty(3, device="meta"),
    }
    future = manager.save_async(1, state)
    base += 1
    state["lists"][1]["step"] = 2  # type: ignore[index]
    state["step"] = 2
    assert not future.done()
    release.set()
    assert future.result(timeout=30) is None
    loaded = manager.load(1)
    assert loaded["weight"].sum() == loaded["view"].sum() == loaded["lists"][0].sum() == 0
    assert (loaded["step"], loaded["lists"][1]) == (1, {"step": 1})
    assert loaded["view"].untyped_storage().data_ptr() == loaded["weight"].untyped_storage().data_ptr()
    assert loaded["meta"].is_meta


def _soon(release: threading.Event) -> None:
    """Let the background save go on while the caller waits for it. A caller that does not wait fails the test."""
    threading.Timer(0.2, release.set).start()


def test_saves_of_a_step_run_one_at_a_time(
    manager: S3CheckpointManager, proxy: RecordingProxy, bucket: str, s3_server: S3Server
) -> None:
    release = _hold(proxy, 1)
    first = manager.save_async(1, {"save": "first"})
    _soon(release)
    manager.save(1, {"save": "second"})
    assert first.result(timeout=30) is None
    assert manager.load(1) == {"save": "second"}
    assert len(_keys(s3_server, bucket)) == 2
    stored = [_is_manifest(each.request) for each in proxy.exchanges if each.method == "PUT"]
    assert stored == [False, True, False, True]


def test_there_is_one_copy_at_a_time(manager: S3CheckpointManager, proxy: RecordingProxy) -> None:
    class Copied:
        def __reduce__(self) -> tuple[Any, ...]:
            return int, (first.done(),)

    release = _hold(proxy, 1)
    first = manager.save_async(1, {})
    _soon(release)
    manager.save_async(2, {"first was done": Copied()}).result(timeout=30)
    assert manager.load(2, weights_only=False) == {"first was done": True}


def test_deleting_waits_for_the_save_of_the_step(manager: S3CheckpointManager, proxy: RecordingProxy) -> None:
    release = _hold(proxy, 2)
    manager.save(1, _state(1))
    future = manager.save_async(2, {})
    manager.delete(1)  # now of another step
    assert not future.done()
    _soon(release)
    manager.delete(2)
    assert future.done()
    assert manager.steps() == []


def test_a_forked_child_saves_on_its_own(manager: S3CheckpointManager, proxy: RecordingProxy) -> None:
    release = _hold(proxy, 1)
    future = manager.save_async(1, {})
    child = multiprocessing.get_context("fork").Process(target=_save_in_child, args=(manager,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    release.set()
    future.result(timeout=30)
    assert manager.steps() == [1, 2, 3]


def _save_in_child(manager: S3CheckpointManager) -> None:
    manager.save_async(2, _state(2)).result(timeout=30)
    manager.save(3, _state(3))


def test_an_error_in_the_background_is_raised_by_the_future(
    manager: S3CheckpointManager, proxy: RecordingProxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.misbehave = lambda request: Replace(s3_error(403, "AccessDenied"))
    future = manager.save_async(1, _state(1))
    with pytest.raises(PermissionError):
        future.result(timeout=30)
    manager.close()
    assert "step 1 was not saved" in caplog.text  # for programs that never look at the future


def test_close_waits_for_saves(manager: S3CheckpointManager) -> None:
    futures = [manager.save_async(step, _state(step)) for step in range(3)]
    manager.close()
    assert all(future.done() for future in futures)
    assert manager.steps() == [0, 1, 2]


def test_a_state_dict_keeps_its_attributes(manager: S3CheckpointManager) -> None:
    model = torch.nn.BatchNorm1d(3)
    manager.save_async(1, model.state_dict()).result(timeout=30)
    loaded = manager.load(1)
    assert loaded._metadata == model.state_dict()._metadata  # type: ignore[attr-defined]
    model.load_state_dict(loaded)


def test_tensors_are_sent_from_their_memory_and_summed_once(
    manager: S3CheckpointManager, lent: list[tuple[int, int]]
) -> None:
    base = torch.randn(300, 1000)
    state: dict[str, Any] = {
        "nested": [{"parameter": torch.nn.Parameter(base)}],
        "rows": base[:100],
        "small": torch.ones(9),
    }
    state["itself"] = state
    manager.save(1, state)
    assert lent == [(base.data_ptr(), base.nbytes)]
    loaded = manager.load(1)
    assert torch.equal(loaded["rows"], base[:100])
    assert torch.equal(loaded["nested"][0]["parameter"], base)
    manager.verify(1)
    [stored] = manager._store.manifest(1).objects
    with manager._store.client.get_object(manager._store.bucket, manager._store.key(1, stored.key)) as reader:
        assert {record.CRC for record in zipfile.ZipFile(reader).infolist()} == {0}
        reader.seek(0)
        assert stored.checksum == ALGORITHMS[0].describe(ALGORITHMS[0].of([reader.read()]))


def test_missing_checkpoints(manager: S3CheckpointManager, bucket: str) -> None:
    with pytest.raises(S3NotFoundError, match=f"no committed checkpoint at s3://{bucket}/run"):
        manager.load()
    with pytest.raises(S3NotFoundError, match="no committed checkpoint of step 3"):
        manager.load(3)
    with pytest.raises(S3NotFoundError, match="no committed checkpoint of step 3"):
        manager.verify(3)
    manager.delete(3)


def test_deleting(manager: S3CheckpointManager, s3_server: S3Server, bucket: str) -> None:
    for step in (1, 2):
        manager.save(step, _state(step))
    manager.delete(2)
    assert manager.latest() == 1
    assert len(_keys(s3_server, bucket)) == 2


def _damage(manager: S3CheckpointManager, how: str) -> None:
    store = manager._store
    [key] = [info.key for info in store.objects(1)]
    if how == "is missing":
        store.client.delete_object(store.bucket, store.key(1, key))
        return
    data = bytearray(store.client.get_object(store.bucket, store.key(1, key)).read())
    data[len(data) // 2] ^= 1
    stream = store.client.put_object(store.bucket, store.key(1, key))
    stream.write(bytes(data[:-1] if "bytes, not" in how else data))
    stream.close()


@pytest.mark.parametrize("how", ["is missing", "bytes, not", "was overwritten"])
def test_damage_is_found(manager: S3CheckpointManager, how: str) -> None:
    manager.save(1, _state(1, size=MIB))
    manager.verify(1)
    _damage(manager, how)
    with pytest.raises(S3FormatError, match=f"step 1 .* is damaged: .*{how}"):
        manager.verify(1)


def test_damage_is_found_without_checksums_of_the_server(
    manager: S3CheckpointManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.save(1, _state(1))
    _damage(manager, "was overwritten")
    monkeypatch.setattr("s3torchconnector._checkpoint_manager._upkeep.differences", lambda *_: [])
    with pytest.raises(S3FormatError, match=r"state\.pt has other content"):
        manager.verify(1)


def test_files_of_ranks_are_verified_by_the_servers_checksums(
    manager: S3CheckpointManager, proxy: RecordingProxy, bucket: str
) -> None:
    data, store = bytes(1000), manager._store
    stream = store.client.put_object(bucket, store.key(1, "new/__0_0.distcp"))
    stream.write(data)
    stream.close()
    store.commit(1, "dcp", "new/", {"new/__0_0.distcp": (1000, None)})
    manager.verify(1)
    [stored] = store.manifest(1).objects
    algorithm = ALGORITHMS[0]
    headers = {
        "ETag": stored.etag,
        "Content-Range": "bytes 0-999/1000",
        algorithm.header: algorithm.encode(algorithm.of([data])),
    }

    def respond_with(body: bytes) -> None:
        get = Replace(response(206, body, headers))
        proxy.misbehave = lambda request: get if request.method == "GET" and ".distcp" in request.path else None

    respond_with(data)
    manager.verify(1)
    respond_with(bytes(999) + b"x")
    with pytest.raises(S3FormatError, match=r"__0_0\.distcp has other content"):
        manager.verify(1)


def test_an_invalid_manifest_is_an_error_that_names_it(manager: S3CheckpointManager, bucket: str) -> None:
    manager.save(1, _state(1))
    stream = manager._store.client.put_object(bucket, "run/step-0000000001.json")
    stream.write(b"{}")
    stream.close()
    with pytest.raises(S3FormatError, match=f"s3://{bucket}/run/step-0000000001.json cannot be used"):
        manager.load()


def test_clean_lists_leftovers_and_then_deletes_them(
    manager: S3CheckpointManager, s3_server: S3Server, bucket: str
) -> None:
    manager.save(1, _state(1))
    whole = _keys(s3_server, bucket)
    left = ["run/step-0000000001/old/state.pt", "run/step-0000000002/new/state.pt"]
    others = ["run/notes.txt", "run/step-2/x", "run2/step-0000000002/x"]
    for key in left + others:
        stream = manager._store.client.put_object(bucket, key)
        stream.write(b"x")
        stream.close()
    expected = [f"s3://{bucket}/{key}" for key in left]
    assert manager.steps() == [1]
    assert manager.clean(min_age=3600).objects == []
    assert manager.clean() == (expected, [])
    assert manager.clean(dry_run=False) == (expected, [])
    assert sorted(_keys(s3_server, bucket)) == sorted(whole + others)
    assert manager.clean() == ([], [])
    manager.verify(1)


def _leave(manager: S3CheckpointManager, key: str) -> None:
    stream = manager._store.client.put_object(manager._store.bucket, key)
    stream.write(b"x")
    stream.close()


def test_a_step_deleted_during_a_clean_is_no_leftover(
    manager: S3CheckpointManager, proxy: RecordingProxy, bucket: str, s3_server: S3Server
) -> None:
    job = _manager(s3_server.endpoint, bucket, keep_last=1)
    job.save(1, _state(1))
    _leave(manager, "run/step-0000000000/old/state.pt")

    def delete_before_it_is_read(request: ReceivedRequest) -> None:
        if request.method == "GET" and request.path.endswith("step-0000000001.json"):
            proxy.misbehave = lambda request: None
            job.save(2, _state(2))

    proxy.misbehave = delete_before_it_is_read
    assert manager.clean(dry_run=False).objects == [f"s3://{bucket}/run/step-0000000000/old/state.pt"]
    assert manager.clean() == ([], [])
    assert manager.steps() == [2]


def test_an_unreadable_manifest_does_not_stop_cleaning(
    manager: S3CheckpointManager, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    manager.save(1, _state(1))
    _leave(manager, "run/step-0000000001.json")
    _leave(manager, "run/step-0000000002/old/state.pt")
    assert manager.clean(dry_run=False).objects == [f"s3://{bucket}/run/step-0000000002/old/state.pt"]
    assert "step 1 is not cleaned, because its manifest cannot be read" in caplog.text
    assert len(manager._store.objects(1)) == 1


def test_unfinished_uploads_are_aborted(moto_server: MotoServer, moto_bucket: str) -> None:
    manager = _manager(moto_server.endpoint, moto_bucket)
    manager.save(1, _state(1))
    client = manager._store.client
    keys = ["run/step-0000000002/a b+c/ä.pt", "run/other", "run2/step-0000000002/x"]
    streams = [client.put_object(moto_bucket, key).stream for key in keys]
    for stream in streams:
        stream.write(bytes(6 * MIB))
        stream._upload._upload_id.result()  # type: ignore[union-attr]
    assert sorted(each.key for each in client.list_multipart_uploads(moto_bucket)) == sorted(keys)
    expected = ([], [f"s3://{moto_bucket}/{keys[0]}"])
    assert manager.clean() == expected
    assert manager.clean(dry_run=False) == expected
    assert sorted(each.key for each in client.list_multipart_uploads(moto_bucket)) == sorted(keys[1:])
    for stream in streams:
        stream.abort()
    assert manager.latest() == 1


def test_many_unfinished_uploads_are_listed_page_by_page(proxy: RecordingProxy, bucket: str) -> None:
    def respond(request: ReceivedRequest) -> Replace:
        number = int(request.query.get("upload-id-marker", "0"))
        assert request.query.get("key-marker", "") == (f"k {number}" if number else "")
        more = f"<NextKeyMarker>k+{number + 1}</NextKeyMarker><NextUploadIdMarker>{number + 1}</NextUploadIdMarker>"
        upload = f"<Upload><Key>k+{number}</Key><UploadId>{number}</UploadId>{_INITIATED}</Upload>"
        body = f"<EncodingType>url</EncodingType><IsTruncated>{str(number < 2).lower()}</IsTruncated>{upload}{more}"
        return Replace(response(200, f"<ListMultipartUploadsResult>{body}</ListMultipartUploadsResult>".encode()))

    proxy.misbehave = respond
    client = S3Client("us-east-1", endpoint=proxy.endpoint)
    assert [each.key for each in client.list_multipart_uploads(bucket, "k")] == ["k 0", "k 1", "k 2"]
    assert {each.query["prefix"] for each in proxy.exchanges} == {"k"}


def test_a_commit_is_refused_if_its_data_was_deleted(
    manager: S3CheckpointManager, proxy: RecordingProxy, bucket: str
) -> None:
    cleaner = _manager(proxy.endpoint, bucket)

    def clean_before_the_commit(request: ReceivedRequest) -> None:
        if request.method == "GET" and "step-0000000001" in request.query.get("prefix", ""):
            proxy.misbehave = lambda request: None
            cleaner.clean(dry_run=False)

    proxy.misbehave = clean_before_the_commit
    with pytest.raises(S3Exception, match="step 1 was not committed"):
        manager.save(1, _state(1))
    assert manager.latest() is None


@pytest.mark.parametrize("step", [-1, 10**10])
def test_invalid_steps_are_refused(manager: S3CheckpointManager, step: int) -> None:
    with pytest.raises(ValueError, match=str(step)):
        manager.save(step, {})


@pytest.mark.parametrize("step", [True, 1.0, "1", None])
def test_steps_that_are_no_numbers_are_refused(manager: S3CheckpointManager, step: Any) -> None:
    with pytest.raises(TypeError, match="whole number"):
        manager.save_async(step, {})


@pytest.mark.parametrize("settings", [{"keep_last": 0}, {"keep_every": -1}, {"keep_last": True}, {"keep_every": 1.5}])
def test_invalid_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        S3CheckpointManager("s3://bucket/run", "us-east-1", **settings)


def test_a_state_dict_to_fill_is_for_ranks(manager: S3CheckpointManager) -> None:
    manager.save(1, _state(1))
    with pytest.raises(ValueError, match="leave out state_dict"):
        manager.load(1, state_dict={})


def test_a_whole_bucket_and_a_slash_at_the_end(s3_server: S3Server, bucket: str) -> None:
    for uri in (f"s3://{bucket}", f"s3://{bucket}/a/"):
        manager = S3CheckpointManager(uri, "us-east-1", endpoint=s3_server.endpoint)
        manager.save(1, _state(1))
        assert manager.load()["step"] == 1
    assert {key.split("step-")[0] for key in _keys(s3_server, bucket)} == {"", "a/"}


def test_it_pickles(manager: S3CheckpointManager) -> None:
    manager.save_async(1, _state(1)).result(timeout=30)
    assert pickle.loads(pickle.dumps(manager)).load()["step"] == 1
