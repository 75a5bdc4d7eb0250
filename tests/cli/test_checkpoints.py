"""``s3torch checkpoints``: steps are listed, verified, cleaned and deleted, and none is lost by accident."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp

from s3torchconnector import S3CheckpointManager, S3Client
from s3torchconnector._cli._checkpoints._remove import parse_duration
from s3torchconnector.dcp import S3StorageWriter
from s3torchconnector.testing import S3Server
from tests.cli.support import at_terminal, call
from tests.servers.moto_server import MotoServer
from tests.servers.proxy import RecordingProxy

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")


@pytest.fixture
def run(bucket: str) -> Iterator[str]:
    """A prefix with steps 1 (of ranks) and 2, and what an interrupted save left of step 3."""
    uri = f"s3://{bucket}/run"
    manager = S3CheckpointManager(uri, "us-east-1")
    state = {"weight": torch.zeros(1000)}
    path = manager._new_path(1)
    writer = S3StorageWriter("us-east-1", manager._store.address(1, path), thread_count=2)
    dcp.save({**state, "bias": torch.zeros(7)}, storage_writer=writer, no_dist=True)
    manager._commit_ranks(1, path)
    manager.save(2, state)
    with manager._store.client.put_object(bucket, "run/step-0000000003/abc/state.pt") as writer:
        writer.write(b"12345")
    yield uri
    manager.close()


def _call(*arguments: str, status: int = 0) -> str:
    done = call("checkpoints", *arguments)
    assert done.returncode == status, done.stderr
    return done.stdout


def _steps(uri: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(_call("list", uri, "--json"))["steps"]
    return found


def _file(s3_server: S3Server, uri: str, step: int, pattern: str) -> Path:
    """The server's file of an object of a step."""
    [file] = (s3_server.folder / uri.removeprefix("s3://") / f"step-{step:010}").glob(f"*/{pattern}")
    return file


def test_steps_are_listed_with_their_states(run: str) -> None:
    found = [
        [each[name] for name in ("step", "state", "format", "files", "latest", "leftover_bytes")]
        for each in _steps(run)
    ]
    assert found == [
        [1, "committed", "dcp", 3, False, 0],
        [2, "committed", "torch", 1, True, 0],
        [3, "not committed", None, 0, False, 5],
    ]
    done = call("checkpoints", "list", run)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["step", "1", "2", "3"]
    assert done.stderr.startswith(f"2 committed steps at {run}, ")
    assert call("checkpoints", "list", f"{run}-none").stderr.startswith("0 committed steps")


def test_a_list_costs_a_request_for_each_step(run: str, proxy: RecordingProxy) -> None:
    _call("list", run, f"--endpoint-url={proxy.endpoint}")
    lists = [each for each in proxy.of("GET") if "list-type" in each.query]
    assert (len(lists), len(proxy.exchanges)) == (2, 4)


def test_undamaged_steps_are_verified_file_by_file(run: str) -> None:
    documents = [json.loads(line) for line in _call("verify", run, "--json").splitlines()]
    assert [(each["step"], each["problem"]) for each in documents] == [(1, None)] * 3 + [(2, None)]
    assert documents[-1]["uri"].startswith(f"{run}/step-0000000002/")
    done = call("checkpoints", "verify", run, "--step", "2")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["ok"]
    assert done.stderr.startswith("1 step, 1 file, ")


def test_other_content_is_found(s3_server: S3Server, run: str) -> None:
    file = _file(s3_server, run, 1, "*_1.distcp")
    bucket, *key = file.relative_to(s3_server.folder).parts
    with S3Client("us-east-1") as client, client.put_object(bucket, "/".join(key)) as writer:
        writer.write(b"short")
    done = call("checkpoints", "verify", run)
    assert done.returncode == 1
    wrong = [line for line in done.stdout.splitlines() if line.startswith("DAMAGED")]
    assert len(wrong) == 1
    assert f"{file.name} has 5 bytes, not " in wrong[0]
    assert f"damaged: step 1 of {run}" in done.stderr
    assert [each["state"] for each in _steps(run)] == ["damaged", "committed", "not committed"]
    assert "has 5 bytes" in _steps(run)[0]["problems"][0]


def test_bytes_that_changed_at_rest_are_found(s3_server: S3Server, run: str) -> None:
    file = _file(s3_server, run, 2, "state.pt")
    times = file.stat()
    data = bytearray(file.read_bytes())
    data[1000] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # so that the server returns no other ETag
    assert _call("verify", run, "--step", "2", "--no-read").startswith("ok")
    assert "has other content" in _call("verify", run, "--step", "2", status=1)


def test_a_manifest_that_cannot_be_read(run: str) -> None:
    with S3Client("us-east-1") as client, client.put_object(run.split("/")[2], "run/step-0000000001.json") as writer:
        writer.write(b"{}")
    assert [each["state"] for each in _steps(run)] == ["unreadable", "committed", "not committed"]
    assert _call("verify", run, status=1).startswith("DAMAGED")


def test_verifying_nothing_is_a_failure(bucket: str) -> None:
    assert "no committed checkpoint" in call("checkpoints", "verify", f"s3://{bucket}/run").stderr
    assert "no committed checkpoint" in call("checkpoints", "verify", f"s3://{bucket}/run", "--step=7").stderr
    assert call("checkpoints", "verify", f"s3://{bucket}/run").returncode == 1


def test_leftovers_are_deleted_if_they_are_old(run: str) -> None:
    assert call("checkpoints", "clean", run, "--yes").stderr.startswith("nothing is left over")
    shown = call("checkpoints", "clean", run, "--min-age=0s", "--dry-run")
    assert shown.stdout.startswith(f"object  {run}/step-0000000003/abc/state.pt")
    assert shown.stderr.startswith("1 object and 0 unfinished uploads would be deleted")
    assert len(_steps(run)) == 3
    document = json.loads(_call("clean", run, "--min-age=0", "--yes", "--json"))
    assert document == {"objects": [f"{run}/step-0000000003/abc/state.pt"], "uploads": [], "deleted": True}
    assert [each["step"] for each in _steps(run)] == [1, 2]


def test_unfinished_uploads_are_aborted(moto_server: MotoServer, moto_bucket: str) -> None:
    endpoint = f"--endpoint-url={moto_server.endpoint}"
    with S3Client("us-east-1", endpoint=moto_server.endpoint) as client:
        stream = client.put_object(moto_bucket, "run/step-0000000001/abc/state.pt").stream
        stream.write(bytes(20 * 2**20))
        done = call("checkpoints", "clean", f"s3://{moto_bucket}/run", endpoint, "--min-age=0", "--yes")
        assert done.stdout == f"upload  s3://{moto_bucket}/run/step-0000000001/abc/state.pt\n"
        assert list(client.list_multipart_uploads(moto_bucket)) == []
        stream.abort()


def test_steps_are_deleted(run: str) -> None:
    assert json.loads(_call("delete", run, "2", "--dry-run", "--json"))["deleted"] is False
    assert len(_steps(run)) == 3
    _call("delete", run, "2", "1", "--yes")
    assert [each["step"] for each in _steps(run)] == [3]


def test_nothing_is_deleted_if_a_step_is_not_committed(run: str) -> None:
    done = call("checkpoints", "delete", run, "1", "3", "--yes")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no committed checkpoint of step 3" in done.stderr
    assert len(_steps(run)) == 3


def test_nothing_is_deleted_without_a_terminal_or_yes(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        for arguments in (["delete", run, "1"], ["clean", run, "--min-age=0"]):
            done = call("checkpoints", *arguments)
            assert done.returncode == 2
            assert "add --yes" in done.stderr
    assert len(_steps(run)) == 3


@pytest.mark.parametrize(("said", "left"), [("n", [1, 2, 3]), ("y", [1, 3])])
def test_a_person_is_asked(run: str, said: str, left: list[int]) -> None:
    with at_terminal("checkpoints", "delete", run, "2") as terminal:
        terminal.expect(f"Delete 1 step at {run}, the latest among them? [y/N] ")
        terminal.type(f"{said}\n")
        assert terminal.wait() == (0 if said == "y" else 1)
    assert [each["step"] for each in _steps(run)] == left


def test_ages_have_units() -> None:
    assert [parse_duration(text) for text in ("7", "7s", "2m", "3h", "1d")] == [7, 7, 120, 10_800, 86_400]
    done = call("checkpoints", "clean", "s3://bucket/run", "--min-age=soon")
    assert (done.returncode, done.stdout) == (2, "")
