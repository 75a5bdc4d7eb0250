"""Programs that tests run, and a check that no process is left over."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import pytest

_MARK = "S3TORCHCONNECTOR_TEST_SESSION"
_GRACE_SECONDS = 10.0
# multiprocessing's own helpers, which end with the interpreter.
_HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


@contextlib.contextmanager
def no_process_left_behind() -> Iterator[None]:
    """Fail at the end if a descendant is alive, even if its parent has ended: descendants inherit a mark."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(_MARK, str(os.getpid()))
        yield
    _, alive = psutil.wait_procs(_descendants(), timeout=_GRACE_SECONDS)
    assert not alive, f"the tests left processes behind: {alive}"


def run(
    command: Sequence[str | Path], seconds: float, *, env: Mapping[str, str], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end.

    If it takes longer, its processes are ended and the test fails with the stacks of the Python processes.
    """
    pipe = subprocess.PIPE
    variables = {**env, "PYTHONFAULTHANDLER": "1"}
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=variables, cwd=cwd) as process:
        try:
            output, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            errors = _abort_all(process)
            pytest.fail(f"{command} took more than {seconds:g} s\n{errors}")
        finally:
            process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def _abort_all(process: subprocess.Popen[str]) -> str:
    """End a program and its descendants, youngest first, and return their standard error with the stacks."""
    top = psutil.Process(process.pid)
    for each in reversed([top, *top.children(recursive=True)]):
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended with another
            is_python = "python" in each.name() or each.name().startswith("pt_")  # torchrun renames itself
            each.send_signal(signal.SIGABRT if is_python else signal.SIGTERM)
            each.wait(_GRACE_SECONDS)
    return process.communicate()[1]


def _descendants() -> list[psutil.Process]:
    found = set(psutil.Process().children(recursive=True))
    found |= {process for process in psutil.process_iter() if _marked(process)}
    return [process for process in found if not _is_helper(process)]


def _marked(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):  # ended meanwhile, or not ours to look at
        return bool(process.environ().get(_MARK) == str(os.getpid()))
    return False


def _is_helper(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        command = " ".join(process.cmdline())
        return process.ppid() == os.getpid() and any(helper in command for helper in _HELPERS)
    return True  # it has ended
