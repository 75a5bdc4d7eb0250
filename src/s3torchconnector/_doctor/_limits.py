"""What the system lets processes use: open files, threads, memory, shared memory. Read once; None where it is unknown.

Control groups limit what containers use: https://docs.kernel.org/admin-guide/cgroup-v2.html. Each directory from the
process's own up to the root may have a limit. The smallest one counts.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from s3torchconnector._late_imports import no_fork

_CGROUPS = Path("/sys/fs/cgroup")
_SHARED = "/dev/shm"
_UNLIMITED = 1 << 60  # the first version of control groups writes a number like that instead of "max"


class Limits(NamedTuple):
    """The limits of this process and its children.

    Attributes:
        open_files, most_open_files: of each process, now and after raising it as far as it goes.
        threads: of all processes together.
        memory: bytes of all processes together; ``memory_source`` says whose limit that is.
        shared_memory: bytes that the file system of shared memory has.
    """

    open_files: int | None = None
    most_open_files: int | None = None
    threads: int | None = None
    threads_source: str = ""
    memory: int | None = None
    memory_source: str = ""
    shared_memory: int | None = None


def read_limits() -> Limits:
    """The limits that apply here."""
    soft, hard, processes = _resource_limits()
    threads = {"`ulimit -u`": processes, "the control group's pids.max": _cgroup_limit("pids", "pids.max")}
    memory = {
        "the control group": _cgroup_limit("memory", "memory.max", "memory.limit_in_bytes"),
        "the machine": _installed_memory(),
    }
    threads_source, most_threads = _smallest(threads)
    memory_source, most_memory = _smallest(memory)
    return Limits(soft, hard, most_threads, threads_source, most_memory, memory_source, _shared_memory())


def _smallest(limits: dict[str, int | None]) -> tuple[str, int | None]:
    known = [(limit, source) for source, limit in limits.items() if limit is not None]
    limit, source = min(known, default=(None, ""))
    return source, limit


def _resource_limits() -> tuple[int | None, int | None, int | None]:
    """Open files, how many may be asked for, and processes of this user; threads count as processes."""
    try:
        with no_fork:
            import resource
    except ImportError:  # not on Windows
        return None, None, None
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    processes = getattr(resource, "RLIMIT_NPROC", None)
    most = resource.RLIM_INFINITY if processes is None else resource.getrlimit(processes)[0]
    values = [None if each in (resource.RLIM_INFINITY, -1) else each for each in (*files, most)]
    return values[0], values[1], values[2]


def _installed_memory() -> int | None:
    with contextlib.suppress(ValueError, OSError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def _shared_memory() -> int | None:
    with contextlib.suppress(OSError, AttributeError):
        found = os.statvfs(_SHARED)
        return found.f_blocks * found.f_frsize
    return None


def _cgroup_limit(controller: str, *files: str) -> int | None:
    with contextlib.suppress(OSError):
        return cgroup_limit(Path("/proc/self/cgroup").read_text(), _CGROUPS, controller, files)
    return None


def cgroup_limit(groups: str, root: Path, controller: str, files: Sequence[str]) -> int | None:
    """The smallest limit of a process's control groups.

    Args:
        groups: which these are: the content of ``/proc/self/cgroup``.
        root: where they are mounted.
        controller: which part of the first version of control groups has the files.
        files: that a group may have its limit in.
    """
    limits: list[int] = []
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            top = root / controller if controllers else root
            own = "" if ".." in path else path.lstrip("/")  # in a container, what is above cannot be seen
            limits += _limits_up_from(top / own, top, files)
    return min((each for each in limits if each < _UNLIMITED), default=None)


def _limits_up_from(group: Path, top: Path, files: Sequence[str]) -> Iterator[int]:
    # In a container, the path may be the host's, which does not exist there, and the top may be the container's group.
    folders = [folder for folder in (group, *group.parents) if folder == top or top in folder.parents]
    for folder in folders:
        for name in files:
            with contextlib.suppress(OSError, ValueError):  # "max"
                yield int((folder / name).read_text())
