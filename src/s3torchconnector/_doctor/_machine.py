"""This machine: versions, and its limits against what the processes of a job use."""

from __future__ import annotations

import platform
import re
from importlib import metadata

from s3torchconnector._config import MIB
from s3torchconnector._doctor._findings import Verdict, failed, passed, skipped, warned
from s3torchconnector._doctor._limits import Limits, read_limits
from s3torchconnector._doctor._session import Session, Target
from s3torchconnector._transfer import connections_of_worker
from s3torchconnector._version import __version__

# As in pyproject.toml, and what pip has to be told.
FLOORS = {"torch": (2, 4), "botocore": (1, 34), "awscrt": (0, 23, 4)}
_NATIVE = "s3torchconnectorclient"
_SPARE_FILES = 64  # of a process: what Python, PyTorch and the program have open
_FILES_PER_WORKER = 16  # of a rank: its pipes, and the memory in which its batches wait
_FEW = 16  # connections, with which it is slow, and works
_SPARE_THREADS = 16  # of a process: of this package and of Python, beside those that serve connections
_SHARED_PER_WORKER = 64 * MIB  # some batches of images
_SMALL = 128 * MIB


def versions(session: Session) -> Verdict:
    """The versions of what takes part."""
    found = {name: _version_of(name) for name in FLOORS}
    known = [f"{name} {version}" for name, version in found.items() if version]
    text = ", ".join([f"s3torchconnector {__version__}", f"Python {platform.python_version()}", *known])
    old = [name for name, version in found.items() if version and _numbers(version) < FLOORS[name]]
    if old:
        names = " ".join(f"'{name}>={'.'.join(map(str, FLOORS[name]))}'" for name in old)
        return failed(f"{text}: too old: {', '.join(old)}", f"pip install -U {names}")
    if _version_of(_NATIVE):
        return failed(
            f"{text}; {_NATIVE}, the package of the native connector, is installed over this one",
            f"pip uninstall -y s3torchconnector {_NATIVE}, then install this version again",
        )
    missing = [name for name in ("torch", "botocore") if not found[name]]
    if missing:
        return warned(f"{text}; not installed: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    if not found["awscrt"]:
        return warned(
            f"{text}; without awscrt, checksums are slower, and CRC64NVME and CRC32C are not compared",
            "from the checkout, pip install '.[checksums]'",
        )
    return passed(text)


def _version_of(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3])


def _processes(target: Target) -> int:
    return target.ranks * (1 + target.workers)


def _of_whom(target: Target) -> str:
    """The processes of a node in words."""
    if _processes(target) == 1:
        return "one process"
    ranks, each = ("1 rank", "") if target.ranks == 1 else (f"{target.ranks} ranks", " each")
    return f"{_processes(target)} processes ({ranks} with {target.workers} workers{each})"


def open_files(session: Session) -> Verdict:
    """The limit of open files, against the connections of a process."""
    return check_open_files(read_limits(), session.config.max_connections, session.target.workers)


def check_open_files(limits: Limits, connections: int, workers: int = 0) -> Verdict:
    """See ``open_files``."""
    limit, spare = limits.open_files, _SPARE_FILES + workers * _FILES_PER_WORKER
    wanted = connections + spare
    if limit is None:
        return passed("not limited")
    text = f"`ulimit -n` is {limit:,}, and max_connections={connections}"
    if limit >= wanted:
        return passed(text)
    most = limits.most_open_files
    raised = f"ulimit -n {65536 if most is None else min(65536, most)}"
    if most is not None and most < wanted:
        raised = "have the hard limit raised (/etc/security/limits.conf, or docker run --ulimit nofile=65536:65536)"
    fewer = f", or lower max_connections in S3ClientConfig to {limit - spare}" if limit - spare >= _FEW else ""
    return failed(f"{text}: a process needs about {wanted}", raised + fewer)


def threads(session: Session) -> Verdict:
    """The limit of threads, against those that the processes of a node may start."""
    return check_threads(read_limits(), session.target, session.config.max_connections)


def check_threads(limits: Limits, target: Target, connections: int) -> Verdict:
    """See ``threads``."""
    sharers = target.workers * target.ranks
    of_workers = sharers * (connections_of_worker(connections, sharers) + _SPARE_THREADS)
    wanted = of_workers + target.ranks * (connections + _SPARE_THREADS)
    text = f"{_of_whom(target)} may start {wanted:,} threads"
    if limits.threads is None:
        return passed(f"{text}, and they are not limited")
    text += f", and {limits.threads_source} is {limits.threads:,}"
    if wanted > limits.threads:
        return failed(text, f"ulimit -u {2 * wanted} (docker run --pids-limit {2 * wanted}), or lower max_connections")
    return passed(text)


def memory(session: Session) -> Verdict:
    """The memory that there is, against the formula of ``S3ClientConfig``."""
    return check_memory(read_limits(), session.target)


def check_memory(limits: Limits, target: Target) -> Verdict:
    """See ``memory``."""
    budget = target.config.memory_budget
    each = budget + max(budget // 8, 4 * MIB) + target.config.max_connections * 64 * 1024
    wanted = _processes(target) * each
    text = f"{_of_whom(target)} may use {wanted / MIB:,.0f} MiB for transfers"
    if limits.memory is None:
        return passed(text)
    text += f" of the {limits.memory / MIB:,.0f} MiB of {limits.memory_source}, beside PyTorch and your samples"
    if 2 * wanted <= limits.memory:
        return passed(text)
    least = max(16, int(budget * limits.memory / (4 * wanted)) // MIB)
    fix = f"lower memory_budget in S3ClientConfig, to {least} * 1024**2, use fewer workers, or have the limit raised"
    return (failed if wanted > limits.memory else warned)(text, fix)


def shared_memory(session: Session) -> Verdict:
    """The shared memory in which data workers hand over batches."""
    return check_shared_memory(read_limits(), session.target)


def check_shared_memory(limits: Limits, target: Target) -> Verdict:
    """See ``shared_memory``."""
    if limits.shared_memory is None:
        return skipped("this system has no /dev/shm")
    wanted = max(_SMALL, target.ranks * target.workers * _SHARED_PER_WORKER)
    text = f"/dev/shm has {limits.shared_memory / MIB:,.0f} MiB, in which data workers hand over batches"
    if limits.shared_memory >= wanted:
        return passed(text)
    return warned(
        f"{text}: too little ends workers by a bus error",
        "docker run --shm-size=8g (or --ipc=host); in Kubernetes, an emptyDir with medium: Memory at /dev/shm",
    )
