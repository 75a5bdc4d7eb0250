"""``s3torch doctor`` on the command line; what it finds is in ``tests/doctor``."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading

import pytest

from s3torchconnector.testing import S3Server
from tests.cli.support import s3torch
from tests.doctor.support import Aws
from tests.servers.http_messages import ReceivedRequest
from tests.servers.scripted import Reply, ScriptedServer, Stall


def test_findings_are_lines_and_no_failure_is_exit_code_0(s3_server: S3Server, bucket: str) -> None:
    (s3_server.folder / bucket / "object").write_bytes(bytes(1000))
    done = s3torch("doctor", f"s3://{bucket}/", "--write", "--seconds", "0")
    assert (done.returncode, done.stderr) == (0, "")
    *lines, summary = done.stdout.splitlines()
    assert {line.split()[0] for line in lines} == {"pass", "warning"}
    assert all(". Fix: " in line for line in lines if line.startswith("warning"))
    assert any(line.split()[:2] == ["pass", "credentials"] for line in lines)
    warnings = [line[8:28].strip() for line in lines if line.startswith("warning")]
    assert summary == f"{len(warnings)} warnings: {', '.join(warnings)}"


def test_too_few_open_files_are_a_failure_in_json(s3_server: S3Server, bucket: str) -> None:
    command = [sys.executable, "-m", "s3torchconnector", "doctor", f"s3://{bucket}/", "--seconds", "0", "--json"]
    limited = ["sh", "-c", f"ulimit -n 64; exec {shlex.join(command)}"]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    document = json.loads(done.stdout)
    assert (document["uri"], document["ok"]) == (f"s3://{bucket}/", False)
    [failure] = [finding for finding in document["findings"] if finding["status"] == "failure"]
    assert failure["check"] == "open files"
    assert "`ulimit -n` is 64" in failure["text"]
    assert "nofile=65536" in failure["fix"]  # the hard limit is lower, too


def test_options_reach_the_checks(s3_server: S3Server) -> None:
    done = s3torch(
        "doctor", "s3://there-is-none/", "--workers", "3", "--ranks", "2", "--max-connections", "7", "--region", "r-1"
    )
    assert done.returncode == 1
    assert "8 processes (2 ranks with 3 workers each)" in done.stdout
    assert "max_connections=7" in done.stdout
    assert "for region r-1" in done.stdout
    *lines, summary = done.stdout.splitlines()
    assert summary.startswith("1 failure: bucket")
    assert not any(".. Fix: " in line for line in lines)
    assert [line.split()[1] for line in lines if line.startswith("failure")] == ["bucket"]
    assert [line.partition("not tried, ")[2] for line in lines if line.startswith("skipped")] == [
        "because of: bucket"
    ] * 2
    assert any(line.startswith("skipped list, get, head, ") for line in lines)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_what_was_written_is_removed_if_it_is_ended(number: int, code: int) -> None:
    aws, asked, silence = Aws(), threading.Event(), threading.Event()

    def answer(request: ReceivedRequest) -> Reply:
        if request.method != "HEAD":
            return aws.answer(request)
        asked.set()
        return [Stall(silence)]

    command = [sys.executable, "-m", "s3torchconnector", "doctor", "s3://bucket/data/", "--write"]
    keys = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret"}
    with ScriptedServer(handler=answer) as server:
        command += ["--endpoint-url", server.endpoint]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, **keys}) as doctor:
            assert asked.wait(60)
            assert len(aws.objects) == 4
            doctor.send_signal(number)
            assert doctor.wait(60) == code
    assert sorted(aws.objects) == ["data/0", "data/1", "data/2"]
