"""Proof that the tests leave no process behind."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import psutil
import pytest

_MARK = "S3TORCHCONNECTOR_TEST_SESSION"
_GRACE_SECONDS = 10.0
# multiprocessing's own helpers, which end with the interpreter.
_HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


@contextlib.contextmanager
def no_process_left_behind() -> Iterator[None]:
    """Fail at the end if a descendant lives on, also one whose parent has ended: those inherit a mark."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(_MARK, str(os.getpid()))
        yield
    _, alive = psutil.wait_procs(_descendants(), timeout=_GRACE_SECONDS)
    assert not alive, f"the tests left processes behind: {alive}"


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
