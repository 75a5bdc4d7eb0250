"""SIGKILL at every stage of a save: the latest checkpoint is complete, and `clean` deletes the rest."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
import torch

from s3torchconnector import S3CheckpointManager, S3ClientConfig
from s3torchconnector._config import MIB
from s3torchconnector._s3client import S3Client
from s3torchconnector.testing import S3Server
from tests.servers.http_messages import ReceivedRequest
from tests.servers.proxy import Drop, Fault, LoseResponse, RecordingProxy
from tests.writing.support import is_complete, is_create, is_part

NEW, OLD = "step-0000000002", "step-0000000001"
_STAGES: dict[str, tuple[Callable[[ReceivedRequest], bool], Fault, int]] = {
    "before the upload": (is_create, Drop(), 1),
    "in the middle of the data": (lambda request: is_part(request) and request.query["partNumber"] == "2", Drop(), 1),
    "before the data is there": (is_complete, Drop(), 1),
    "when the data is there": (is_complete, LoseResponse(), 1),
    "before the commit": (lambda r: r.method == "PUT" and r.path.endswith(f"{NEW}.json"), Drop(), 1),
    "at the commit": (lambda r: r.method == "PUT" and r.path.endswith(f"{NEW}.json"), LoseResponse(), 2),
    "before the old one goes": (lambda r: r.method == "DELETE" and r.path.endswith(f"{OLD}.json"), Drop(), 2),
    "while the old one goes": (lambda r: r.method == "DELETE" and r.path.endswith("state.pt"), Drop(), 2),
}


def _manager(endpoint: str, bucket: str) -> S3CheckpointManager:
    config = S3ClientConfig(part_size=5 * MIB, max_connections=4)
    uri = f"s3://{bucket}/run"
    return S3CheckpointManager(uri, "us-east-1", endpoint=endpoint, s3client_config=config, keep_last=1)


def _save(endpoint: str, bucket: str, step: int) -> None:
    _manager(endpoint, bucket).save(step, {"weight": torch.full((3 * MIB,), float(step))})  # 12 MiB


def _killed_while_saving(
    proxy: RecordingProxy, bucket: str, stage: Callable[[ReceivedRequest], bool], fault: Fault
) -> None:
    """Save step 2 in a process that is killed at this request: before the server carries it out, or after."""
    begin, let_begin = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(30)
            torch.set_num_threads(1)  # OpenMP's threads are only in the parent
            os.read(begin, 1)
            _save(proxy.endpoint, bucket, 2)
        finally:
            os._exit(0)
    response_lost = False

    def strike(request: ReceivedRequest) -> Fault | None:
        nonlocal response_lost
        if isinstance(fault, LoseResponse) and stage(request) and not response_lost:
            response_lost = True
            return fault
        if response_lost or stage(request):
            os.kill(pid, signal.SIGKILL)
            return Drop()
        return None

    proxy.misbehave = strike
    os.write(let_begin, b"x")
    _, status = os.waitpid(pid, 0)
    os.close(begin)
    os.close(let_begin)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


@pytest.mark.parametrize("stage", _STAGES)
def test_the_latest_is_whole(stage: str, s3_server: S3Server, proxy: RecordingProxy, bucket: str) -> None:
    _save(s3_server.endpoint, bucket, 1)
    request, fault, latest = _STAGES[stage]
    _killed_while_saving(proxy, bucket, request, fault)

    manager = _manager(s3_server.endpoint, bucket)
    assert manager.latest() == latest
    assert manager.load()["weight"].sum() == latest * 3 * MIB
    manager.verify(latest)

    left = manager.clean(dry_run=False)
    assert manager.clean() == ([], [])
    assert all(OLD in uri or NEW in uri for uri in (*left.objects, *left.uploads))
    manager.verify(latest)
    _save(s3_server.endpoint, bucket, 3)
    pages = S3Client("us-east-1", endpoint=s3_server.endpoint).list_objects(bucket)
    assert len([info for page in pages for info in page.object_info]) == 2
