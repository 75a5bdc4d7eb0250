"""``s3torch ls``, and what all commands share: options, exit codes, pipes."""

from __future__ import annotations

import json
import subprocess
import sys

from s3torchconnector.testing import S3Server
from tests.cli.support import s3torch


def test_objects_are_listed_with_sizes(s3_server: S3Server, bucket: str) -> None:
    for name, size in (("a/1", 5), ("a/2", 12_345), ("b", 1)):
        path = s3_server.folder / bucket / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(bytes(size))
    done = s3torch("ls", f"s3://{bucket}/a/")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["5", f"s3://{bucket}/a/1"],
        ["12345", f"s3://{bucket}/a/2"],
    ]


def test_json_is_one_document_a_line(s3_server: S3Server, bucket: str) -> None:
    (s3_server.folder / bucket / "a").write_bytes(b"12345")
    done = s3torch("ls", f"s3://{bucket}/", "--json")
    [document] = map(json.loads, done.stdout.splitlines())
    assert (document["uri"], document["size"]) == (f"s3://{bucket}/a", 5)


def test_an_error_of_s3_is_one_line_and_exit_code_1(s3_server: S3Server) -> None:
    done = s3torch("ls", "s3://there-is-none/")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("s3torch: ")
    assert "NoSuchBucket" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_wrong_usage_is_exit_code_2() -> None:
    for arguments in (["ls"], ["ls", "not-a-uri"], ["no-command"], ["ls", "--no-option", "s3://bucket"]):
        done = s3torch(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert "Traceback" not in done.stderr


def test_a_reader_that_ends_early_is_no_error(s3_server: S3Server, bucket: str) -> None:
    folder = s3_server.folder / bucket
    for number in range(3_000):  # more than fits into a pipe
        (folder / f"{number:04d}-{'x' * 60}").touch()
    command = [sys.executable, "-m", "s3torchconnector", "ls", f"s3://{bucket}/"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as listing:
        assert listing.stdout is not None
        assert listing.stderr is not None
        listing.stdout.readline()
        listing.stdout.close()
        assert listing.stderr.read() == ""
        assert listing.wait(60) == 141
