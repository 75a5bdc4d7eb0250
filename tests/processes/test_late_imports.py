"""Imports that wait until they are needed: a fork never cuts one in two."""

from __future__ import annotations

import ast
import itertools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import s3torchconnector
from s3torchconnector import _fork_gate
from s3torchconnector._late_imports import no_fork
from s3torchconnector._wire._checksums import ALGORITHMS
from s3torchconnector.testing import S3Server
from tests.interrupts import interrupted_at
from tests.servers.http_messages import response
from tests.servers.processes import run
from tests.servers.scripted import ScriptedServer
from tests.servers.warm import WarmPython

_SOURCES = Path(s3torchconnector.__file__).parent
CRC64NVME = ALGORITHMS[0]

# Forks while another thread imports a slow module; the child imports it, too. `with {}` is what may hold off the fork.
_PROGRAM = """
import contextlib, os, signal, sys, threading
from s3torchconnector._late_imports import no_fork

begun = sys.modules["begun"] = threading.Event()

def import_it():
    with {}:
        import slow

threading.Thread(target=import_it).start()
begun.wait()
pid = os.fork()
if not pid:
    signal.alarm({})
    with no_fork:
        import slow
    os._exit(slow.ANSWER)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
_SLOW = """
import sys, time
sys.modules["begun"].set()
time.sleep(0.5)
ANSWER = 42
"""


def _environment(folder: Path) -> dict[str, str]:
    path = [str(folder), str(_SOURCES.parent)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


@pytest.mark.parametrize(
    ("guard", "seconds", "status"), [("no_fork", 30, 42), ("contextlib.nullcontext()", 1, -signal.SIGALRM)]
)
def test_a_fork_waits_for_an_import(tmp_path: Path, guard: str, seconds: int, status: int) -> None:
    """If it does not, the child waits forever. When that case passes, CPython needs no help any more."""
    (tmp_path / "slow.py").write_text(_SLOW)
    program = [sys.executable, "-c", _PROGRAM.format(guard, seconds)]
    done = run(program, 60, env=_environment(tmp_path))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == status, done.stderr


def _late_imports_of(tree: ast.AST, guarded: bool = False) -> list[int]:
    """The lines of imports in functions that no ``with no_fork`` guards."""
    found = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found += [] if guarded else [node.lineno]
        elif isinstance(node, ast.With):
            names = [item.context_expr.id for item in node.items if isinstance(item.context_expr, ast.Name)]
            found += _late_imports_of(node, guarded or "no_fork" in names)
        else:
            found += _late_imports_of(node, guarded)
    return found


def test_every_import_in_a_function_delays_forks() -> None:
    unguarded = []
    for path in _SOURCES.rglob("*.py"):
        functions = (
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, (ast.FunctionDef, ast.Lambda))
        )
        unguarded += [f"{path.relative_to(_SOURCES)}:{line}" for each in functions for line in _late_imports_of(each)]
    assert not unguarded


# -- no lock is held during an import ---------------------------------------------------------------------------------

# One thread imports a module lately, and another directly, as unpickling does; the module imports lately itself.
_CROSSED = """
import os, sys, threading
from s3torchconnector._late_imports import no_fork

begun, entered = threading.Event(), threading.Event()
sys.modules["crossed"] = threading
threading.begun, threading.entered = begun, entered

def directly():
    import deep

def lately():
    begun.wait()
    with no_fork:
        entered.set()
        import deep

threads = [threading.Thread(target=each, daemon=True) for each in (directly, lately)]
for each in threads:
    each.start()
for each in threads:
    each.join(10)
print([each.is_alive() for each in threads], flush=True)
os._exit(0)
"""
_DEEP = """
from crossed import begun, entered
from s3torchconnector._late_imports import no_fork
begun.set()
entered.wait()
with no_fork:
    import json
"""


def _run_program(program: str, folder: Path, timeout: float = 60) -> str:
    done = run([sys.executable, "-c", program], timeout, env=_environment(folder))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_import_awaited_by_another_thread_may_import_late(tmp_path: Path) -> None:
    (tmp_path / "deep.py").write_text(_DEEP)
    assert _run_program(_CROSSED, tmp_path) == "[False, False]"


# Attribute of the package on one thread, and the module that has it on another, at the same time.
_RACE = """
import importlib, os, sys, threading
import torch.distributed.checkpoint  # which takes seconds, and is not what they race for
import s3torchconnector

barrier = threading.Barrier(2)
switch = sys.getswitchinterval()
sys.setswitchinterval(1e-6)

def use():
    barrier.wait()
    getattr(s3torchconnector, {name!r})

def load():
    barrier.wait()
    importlib.import_module({module!r})

threads = [threading.Thread(target=each, daemon=True) for each in (use, load)]
for each in threads:
    each.start()
for each in threads:
    each.join(20)
print([each.is_alive() for each in threads], flush=True)
os._exit(0)
"""


@pytest.mark.parametrize(
    ("name", "module"),
    [("S3MapDataset", "s3torchconnector.s3map_dataset"), ("S3CheckpointManager", "s3torchconnector.dcp")],
)
def test_first_use_of_a_name_on_two_threads(warm_python: WarmPython, name: str, module: str) -> None:
    done = warm_python.run("-c", _RACE.format(name=name, module=module))
    assert (done.returncode, done.stdout) == (0, "[False, False]\n"), done.stderr


# Prints in a line for each epoch what its worker has imported.
_WORKERS = """
import sys
from torch.utils.data import DataLoader
from s3torchconnector import S3MapDataset

def note(number):
    global before
    before = set(sys.modules)

def imported(samples):
    return [name for name in sys.modules if name not in before and name.startswith(("s3torchconnector", "awscrt"))]

uris = [f"{sys.argv[1]}/{number}" for number in range(32)]
dataset = S3MapDataset.from_objects(
    uris, region="us-east-1", endpoint=sys.argv[2], transform=lambda reader: reader.read()
)
loader = DataLoader(
    dataset, 8, num_workers=1, multiprocessing_context="fork", worker_init_fn=note, collate_fn=imported
)
for epoch in range(2):
    print(*[name for names in loader for name in names], flush=True)
"""
_WHAT_WAITS_MAY_NEED = ("_plan_executor", "_request_planner")  # an object that is read before it was fetched early


def _imported_by_workers(python: WarmPython, bucket: str, endpoint: str) -> list[set[str]]:
    """In each of two epochs."""
    done = python.run("-c", _WORKERS, f"s3://{bucket}", endpoint)
    assert done.returncode == 0, done.stderr
    return [
        {name for name in line.split() if not name.endswith(_WHAT_WAITS_MAY_NEED)} for line in done.stdout.split("\n")
    ][:2]


def test_forked_workers_find_everything_imported(warm_python: WarmPython, bucket: str, s3_server: S3Server) -> None:
    """Otherwise each worker of each epoch imports it anew, while the program waits for its first batch."""
    for number in range(32):
        (s3_server.folder / bucket / str(number)).write_bytes(bytes(1000))
    assert _imported_by_workers(warm_python, bucket, s3_server.endpoint) == [set(), set()]


def test_only_the_first_workers_import_what_checksums_need(warm_python: WarmPython, s3_server: S3Server) -> None:
    data = bytes(1000)
    checksum = {CRC64NVME.header: CRC64NVME.encode(CRC64NVME.update(data, 0)), "ETag": '"e"'}
    with ScriptedServer(handler=lambda _: response(200, data, checksum)) as server:
        first, second = _imported_by_workers(warm_python, "bucket", server.endpoint)
    assert "awscrt.checksums" in first
    assert second == set()


_FORKS = """
import os, sys
from s3torchconnector import S3MapDataset
pid = os.fork()
if not pid:
    os._exit("numpy.random" in sys.modules)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_a_forked_worker_need_not_import_what_it_seeds(tmp_path: Path) -> None:
    assert _run_program(_FORKS, tmp_path) == "1"


# A hook that runs between ours and the fork lets another thread begin an import: that has to wait for the fork.
_LATE = """
import os, signal, sys, threading

go, inside = threading.Event(), threading.Event()

def before():
    go.set()
    frames = lambda: sys._current_frames()[importing.ident]
    while not inside.is_set() and not frames().f_code.co_filename.endswith("_latch.py"):
        pass
    print("begun before the fork" if inside.is_set() else "waits", flush=True)

os.register_at_fork(before=before)  # registered first, it is called last
from s3torchconnector._late_imports import no_fork

def import_it():
    go.wait()
    with no_fork:
        inside.set()

importing = threading.Thread(target=import_it)
importing.start()
pid = os.fork()
if not pid:
    signal.alarm(5)
    with no_fork:
        import json
    os._exit(0)
importing.join()
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_an_import_waits_for_a_fork_that_has_begun(tmp_path: Path) -> None:
    assert _run_program(_LATE, tmp_path).split("\n") == ["waits", "0"]


# The thread that forks holds what the import waits for.
_HELD = """
import os, signal, threading
from s3torchconnector import _fork_gate
from s3torchconnector._late_imports import no_fork

assert _fork_gate._TIMEOUT > 1
_fork_gate._TIMEOUT = 0.2
begun, forked = threading.Event(), threading.Event()

def import_it():
    with no_fork:
        begun.set()
        forked.wait()

importing = threading.Thread(target=import_it)
importing.start()
begun.wait()
pid = os.fork()
if not pid:
    signal.alarm(5)
    with no_fork:
        import json
    os._exit(0 if os.fork() == 0 else os.waitstatus_to_exitcode(os.wait()[1]))
forked.set()
importing.join()
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_a_fork_does_not_wait_forever(tmp_path: Path) -> None:
    assert _run_program(_HELD, tmp_path) == "0"


def _import_nothing() -> None:
    with no_fork:
        pass


@pytest.mark.parametrize(
    "functions", [[_fork_gate._NoFork.__enter__], [_fork_gate._NoFork.__exit__, _fork_gate._end_import]]
)
def test_an_interrupted_import_delays_no_fork(functions: list[Callable[..., Any]]) -> None:
    for moment in itertools.count(1):
        interrupted = False
        try:
            with interrupted_at(moment, *functions):
                _import_nothing()
        except KeyboardInterrupt:
            interrupted = True
        assert not _fork_gate._others_import(0), moment
        assert not _fork_gate._importing
        if not interrupted:
            break
    assert moment > 3


def test_a_fork_waits_for_a_section_of_any_function_that_is_running() -> None:
    """Also if that has called others meanwhile."""
    with no_fork:
        assert [_fork_gate._others_import(0) for _ in range(2)] == [True, True]
    assert not _fork_gate._others_import(0)
