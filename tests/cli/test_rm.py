"""``s3torch rm``: what is deleted, what is asked before, and what stays."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3torchconnector import S3Client
from s3torchconnector.testing import S3Server
from tests.cli.support import at_terminal, call
from tests.servers.http_messages import ReceivedRequest, s3_error
from tests.servers.proxy import RecordingProxy, Replace


@pytest.fixture
def tree(s3_server: S3Server, bucket: str) -> Path:
    """Objects of 1000 bytes: ``run/1`` to ``run/3``, ``run/sub/4``, ``run-2/5`` and ``runs``; of another time."""
    folder = s3_server.folder / bucket
    for name in ("run/1", "run/2", "run/3", "run/sub/4", "run-2/5", "runs"):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(bytes(1000))
        os.utime(folder / name, (1_700_000_000, 1_700_000_000))
    return folder


def _left(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_objects_are_deleted_and_counted(tree: Path) -> None:
    uri = f"s3://{tree.name}"
    done = call("rm", f"{uri}/run/1", f"{uri}/run-2/5", "--yes", "--verbose")
    assert (done.returncode, done.stderr) == (0, "deleted 2 objects\n")
    assert sorted(done.stdout.splitlines()) == [f"{uri}/run-2/5", f"{uri}/run/1"]
    assert _left(tree) == {"run/2", "run/3", "run/sub/4", "runs"}


def test_a_folder_has_its_own_objects_and_not_those_with_its_prefix(tree: Path) -> None:
    done = call("rm", "-r", "-y", f"s3://{tree.name}/run", "--json")
    assert (done.returncode, done.stderr) == (0, "deleted 4 objects\n")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["uri"].rpartition("/")[2] for line in lines} == {"1", "2", "3", "4"}
    assert all((line["size"], line["result"]) == (1000, "deleted") for line in lines)
    assert _left(tree) == {"run-2/5", "runs"}


def test_a_dry_run_deletes_nothing(tree: Path) -> None:
    done = call("rm", "--recursive", "--dry-run", f"s3://{tree.name}/run")
    assert (done.returncode, done.stderr) == (0, "would delete 4 objects\n")
    assert len(done.stdout.splitlines()) == 4
    assert len(_left(tree)) == 6


def test_without_a_terminal_nothing_is_deleted_unless_asked_for(tree: Path) -> None:
    for options in ([], ["--recursive"]):
        done = call("rm", f"s3://{tree.name}/run", *options)
        assert (done.returncode, done.stdout) == (2, "")
        assert "--yes" in done.stderr
    assert len(_left(tree)) == 6


def test_a_whole_bucket_needs_its_own_option(tree: Path) -> None:
    for uri in (f"s3://{tree.name}", f"s3://{tree.name}/", f"s3://{tree.name}//"):
        done = call("rm", uri, "--recursive", "--yes")
        assert (done.returncode, "--whole-bucket" in done.stderr) == (2, True)
        assert call("rm", uri.rstrip("/"), "--yes").returncode == 2
    assert len(_left(tree)) == 6
    assert call("rm", f"s3://{tree.name}", "--recursive", "--yes", "--whole-bucket").returncode == 0
    assert _left(tree) == set()


def test_a_person_is_asked_and_may_say_no(tree: Path) -> None:
    uri = f"s3://{tree.name}/run"
    with at_terminal("rm", "--recursive", uri) as terminal:
        terminal.expect(f"Delete 4 objects, 3.9 KiB, below {uri}/? [y/N] ")
        terminal.type("\n")
        assert terminal.wait() == 1
    assert "nothing was deleted" in terminal.seen
    with at_terminal("rm", uri + "/1") as terminal:
        terminal.expect(f"Delete 1 object, 1000 B, {uri}/1? [y/N] ")
        terminal.type("yes\n")
        assert terminal.wait() == 0
    assert _left(tree) == {"run/2", "run/3", "run/sub/4", "run-2/5", "runs"}
    with at_terminal("rm", uri + "/1") as terminal:
        assert terminal.wait() == 1
    assert "not found" in terminal.seen


def test_objects_stored_after_the_question_stay(tree: Path, s3_server: S3Server) -> None:
    with at_terminal("rm", "--recursive", f"s3://{tree.name}/run") as terminal:
        terminal.expect("[y/N] ")
        with S3Client(s3_server.region) as client, client.put_object(tree.name, "run/new") as writer:
            writer.write(b"a result")
        terminal.type("y\n")
        assert terminal.wait() == 0
    assert "deleted 4 objects; skipped 1 object" in terminal.seen
    assert _left(tree) == {"run/new", "run-2/5", "runs"}


def test_ctrl_c_at_the_question_deletes_nothing(tree: Path) -> None:
    with at_terminal("rm", "--recursive", f"s3://{tree.name}/run") as terminal:
        terminal.expect("[y/N] ")
        terminal.type("\x03")
        assert terminal.wait() == 130
    assert len(_left(tree)) == 6


@pytest.fixture
def only_two(tree: Path, proxy: RecordingProxy) -> Iterator[RecordingProxy]:
    """A server that lets nobody delete ``run/2``, and that deletes objects one by one."""
    denied, unknown = Replace(s3_error(403, "AccessDenied")), Replace(s3_error(501, "NotImplemented"))

    def misbehave(request: ReceivedRequest) -> Replace | None:
        if request.method == "POST":
            return unknown
        return denied if request.method == "DELETE" and request.path.endswith("/2") else None

    proxy.misbehave = misbehave
    return proxy


def test_what_cannot_be_deleted_keeps_nothing_else(tree: Path, only_two: RecordingProxy) -> None:
    done = call("rm", "--recursive", "-y", f"s3://{tree.name}/run", f"--endpoint-url={only_two.endpoint}")
    assert (done.returncode, done.stdout) == (1, "")
    failure, figures = done.stderr.splitlines()
    assert failure.startswith(f"s3torch: s3://{tree.name}/run/2: ")
    assert figures == "s3torch: deleted 3 objects; failed to delete 1 object"
    assert _left(tree) == {"run/2", "run-2/5", "runs"}


def test_a_thousand_objects_take_one_request(tree: Path, proxy: RecordingProxy) -> None:
    done = call("rm", "--recursive", "-y", f"s3://{tree.name}/run", f"--endpoint-url={proxy.endpoint}")
    assert (done.returncode, done.stderr) == (0, "deleted 4 objects\n")
    asked = [(each.method, "delete" in each.query) for each in proxy.exchanges if each.method != "GET"]
    assert asked == [("POST", True)]
