"""Which step is the latest, which are kept, and how many requests that takes, on a server whose clock the test sets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from s3torchconnector import S3CheckpointManager, S3ClientConfig
from s3torchconnector.testing import S3Server
from tests.checkpoint_manager.test_manager import _manager
from tests.servers.http_messages import ReceivedRequest, s3_error
from tests.servers.memory_s3 import MemoryS3, Stored
from tests.servers.proxy import RecordingProxy, Replace
from tests.servers.scripted import ScriptedServer


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> MemoryS3:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    return MemoryS3()


@pytest.fixture
def server(s3: MemoryS3) -> Iterator[ScriptedServer]:
    with ScriptedServer(handler=s3.answer) as server:
        yield server


def _managed(server: ScriptedServer, **options: Any) -> S3CheckpointManager:
    config = S3ClientConfig(hedge=False)
    return S3CheckpointManager("s3://b/run", "us-east-1", endpoint=server.endpoint, s3client_config=config, **options)


def _save(manager: S3CheckpointManager, *steps: int) -> None:
    for step in steps:
        manager.save(step, {"step": step})


def test_a_run_that_goes_back_keeps_its_own_checkpoints(server: ScriptedServer) -> None:
    _save(_managed(server, keep_last=3), 1000, 2000, 3000)
    manager = _managed(server, keep_last=3)  # a new process
    kept = []
    for step in (10, 20, 30, 40):
        _save(manager, step)
        kept.append(manager.steps())
        assert manager.latest() == _managed(server).latest() == step
        assert manager.load()["step"] == step
    assert kept == [[10, 2000, 3000], [10, 20, 3000], [10, 20, 30], [20, 30, 40]]


def test_steps_that_are_always_kept_are_not_the_latest(server: ScriptedServer) -> None:
    manager = _managed(server, keep_last=1, keep_every=1000)
    _save(manager, 1000, 1500, 1200)
    assert manager.steps() == [1000, 1200]
    assert manager.latest() == 1200


def test_a_step_that_is_saved_again_is_the_latest(server: ScriptedServer) -> None:
    manager = _managed(server, keep_last=2)
    _save(manager, 1, 2, 3, 2)
    assert manager.steps() == [2, 3]
    assert manager.latest() == 2


@pytest.mark.parametrize("times", [(0, 0, 0, 0), (3, 2, 1, 0), (0, 1, 1, 2)])
def test_the_order_survives_a_copy_of_the_bucket(s3: MemoryS3, server: ScriptedServer, times: tuple[int, ...]) -> None:
    """Then the times of objects are those at which they were copied."""
    _save(_managed(server), 10, 1000, 2000, 20)
    manifests = sorted(key for key in s3.objects if key.endswith(".json"))
    for key, time in zip(manifests, times, strict=True):
        there = s3.objects[key]
        s3.objects[key] = Stored(there.data, there.metadata, s3.now + time, there.owner)
    manager = _managed(server, keep_last=3)
    assert manager.latest() == 20
    _save(manager, 30)
    assert manager.steps() == [20, 30, 2000]


def test_a_manifest_that_cannot_be_read_counts_by_its_time(s3: MemoryS3, server: ScriptedServer) -> None:
    manager = _managed(server)
    _save(manager, 1, 2)
    s3.objects["run/step-0000000003.json"] = Stored(b"{}", {}, s3.now - 15, "")
    assert manager.latest() == 2
    assert manager.steps() == [1, 2, 3]


def test_requests_do_not_grow_with_the_objects(s3: MemoryS3, server: ScriptedServer) -> None:
    """With thousands of objects in each checkpoint, and in what interrupted saves left."""
    manager = _managed(server, keep_last=2)
    _save(manager, 1, 2)
    for number in range(5000):
        key = f"run/step-{number % 4:010}/0123456789abcdef/__{number}_0.distcp"
        s3.objects[key] = Stored(b"x", {}, s3.now, "")

    def asked(act: Any) -> list[str]:
        s3.requests.clear()
        act()
        return sorted(f"{each.method} {each.query.get('prefix', '')}".strip() for each in s3.requests)

    assert asked(manager.latest) == ["GET run/"]
    assert asked(manager.steps) == ["GET run/"]
    asked_by_save = asked(lambda: manager.save(3, {}))
    path = next(each for each in asked_by_save if each.startswith("GET run/step"))
    assert path.startswith("GET run/step-0000000003/")
    # Its data and its manifest. Is the step committed, is its data there, which steps exist? Then step 1 is deleted.
    assert asked_by_save == sorted(["PUT", "PUT", "GET", path, "GET run/", "GET", "DELETE", "DELETE"])


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (500, "InternalError")])
def test_a_manifest_that_cannot_be_read_is_replaced(
    proxy: RecordingProxy, bucket: str, caplog: pytest.LogCaptureFixture, status: int, code: str
) -> None:
    """The objects that it names remain: better than to lose a save for objects that should be deleted."""
    manager = _manager(proxy.endpoint, bucket)
    manager.save(1, {"save": "first"})
    proxy.misbehave = lambda request: (
        Replace(s3_error(status, code)) if request.method == "GET" and request.path.endswith(".json") else None
    )
    manager.save(1, {"save": "second"})
    proxy.misbehave = lambda request: None
    assert "cannot be read, and is replaced anyway" in caplog.text
    assert manager.load(1) == {"save": "second"}
    assert len(manager._store.objects(1)) == 2
    assert len(manager.clean(dry_run=False).objects) == 1


def test_a_save_leaves_data_of_other_jobs_alone(bucket: str, s3_server: S3Server) -> None:
    """It looks like what an interrupted save left, which only ``clean`` deletes."""
    manager = _manager(s3_server.endpoint, bucket)
    manager.save(1, {"save": "first"})
    stream = manager._store.client.put_object(bucket, "run/step-0000000001/0123456789abcdef/state.pt")
    stream.write(b"of another job")
    stream.close()
    manager.save(1, {"save": "second"})
    assert len(manager._store.objects(1)) == 2
    manager.delete(1)
    assert [info.key for info in manager._store.objects(1)] == ["0123456789abcdef/state.pt"]


def test_a_step_committed_after_the_listing_is_not_cleaned(
    bucket: str, proxy: RecordingProxy, s3_server: S3Server
) -> None:
    """The data is stored when the cleaner lists it, the manifest only after that."""
    job = _manager(s3_server.endpoint, bucket)
    job.save(1, {"weight": torch.ones(3)})
    client, key = job._store.client, "run/step-0000000001.json"
    data = client.get_object(bucket, key).read()
    client.delete_object(bucket, key)

    def commit(request: ReceivedRequest) -> None:
        if request.method == "GET" and request.path.endswith(".json"):
            proxy.misbehave = lambda request: None
            stream = client.put_object(bucket, key)
            stream.write(data)
            stream.close()

    proxy.misbehave = commit
    assert _manager(proxy.endpoint, bucket).clean(dry_run=False).objects == []
    job.verify(1)
