"""Versions, and limits of the system against what a job uses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from s3torchconnector import S3ClientConfig
from s3torchconnector._doctor import Status, Target
from s3torchconnector._doctor._limits import Limits, cgroup_limit, read_limits
from s3torchconnector._doctor._machine import (
    FLOORS,
    check_memory,
    check_open_files,
    check_shared_memory,
    check_threads,
)

MIB = 1024**2
JOB = Target("bucket", workers=8, ranks=8)


def test_the_floors_match_the_package() -> None:
    declared = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    for name, floor in FLOORS.items():
        assert set(re.findall(rf'"{name}>=([\d.]+)"', declared)) == {".".join(map(str, floor))}


def test_the_limits_of_this_machine_are_read() -> None:
    limits = read_limits()
    assert (limits.open_files or 1 << 60) > 10
    assert (limits.memory or 0) > 100 * MIB
    assert limits.memory_source in ("the machine", "the control group")


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/a/b", {"a/memory.max": "1000", "a/b/memory.max": "max"}, 1000),  # the group above limits, too
        ("0::/a/b", {"a/memory.max": "1000", "a/b/memory.max": "10"}, 10),
        ("0::/not/in/the/container", {"memory.max": "1000"}, 1000),
        ("0::/../..", {"memory.max": "1000"}, 1000),
        ("0::/", {"memory.max": "max"}, None),
        ("0::/", {}, None),
        ("5:cpu,cpuacct:/b\n4:memory:/a", {"memory/a/memory.limit_in_bytes": "1000", "memory/b/memory.max": "1"}, 1000),
        ("4:memory:/", {"memory/memory.limit_in_bytes": "9223372036854771712"}, None),  # which means none
    ],
)
def test_limits_of_control_groups(tmp_path: Path, groups: str, files: dict[str, str], limit: int | None) -> None:
    for name, content in {**files, "../memory.max": "1"}.items():  # which is no control group
        path = tmp_path / "top" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    assert cgroup_limit(groups, tmp_path / "top", "memory", ("memory.max", "memory.limit_in_bytes")) == limit


def test_too_few_open_files() -> None:
    verdict = check_open_files(Limits(open_files=200, most_open_files=4096), 192)
    assert verdict.status is Status.FAILURE
    assert verdict.fix == "ulimit -n 4096, or lower max_connections in S3ClientConfig to 136"
    assert "nofile=65536" in check_open_files(Limits(open_files=200, most_open_files=200), 192).fix
    assert check_open_files(Limits(open_files=256), 192).status is Status.PASS
    assert check_open_files(Limits(open_files=256), 192, workers=1).status is Status.FAILURE
    assert check_open_files(Limits(), 192).status is Status.PASS


def test_too_few_threads() -> None:
    # 8 ranks with 192 connections, 64 workers with 32 each, and some spare threads for each process.
    wanted = 8 * (192 + 16) + 64 * (32 + 16)
    verdict = check_threads(Limits(threads=wanted - 1, threads_source="the limit"), JOB, 192)
    assert verdict.status is Status.FAILURE
    assert f"72 processes (8 ranks with 8 workers each) may start {wanted:,} threads" in verdict.text
    assert f"--pids-limit {2 * wanted}" in verdict.fix
    assert check_threads(Limits(threads=wanted), JOB, 192).status is Status.PASS


def test_too_little_memory() -> None:
    wanted = 72 * (128 + 16 + 12)  # MiB: budget, an eighth of it, receive windows
    verdicts = [check_memory(Limits(memory=size * MIB), JOB).status for size in (wanted - 1, wanted, 2 * wanted)]
    assert verdicts == [Status.FAILURE, Status.WARNING, Status.PASS]
    tight = Target("bucket", config=S3ClientConfig(memory_budget=16 * MIB), workers=8, ranks=8)
    assert check_memory(Limits(memory=wanted * MIB), tight).status is Status.PASS


def test_too_little_shared_memory() -> None:
    verdict = check_shared_memory(Limits(shared_memory=64 * MIB), Target("bucket"))  # of containers
    assert verdict.status is Status.WARNING
    assert "--shm-size" in verdict.fix
    assert check_shared_memory(Limits(shared_memory=4096 * MIB), JOB).status is Status.PASS
