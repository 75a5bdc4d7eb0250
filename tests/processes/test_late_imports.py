"""Imports that wait until they are needed: a fork never cuts one in two."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path

import pytest

import s3torchconnector
from tests.servers.processes import run

_SOURCES = Path(s3torchconnector.__file__).parent

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
    signal.alarm(3)
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


@pytest.mark.parametrize(("guard", "status"), [("no_fork", 42), ("contextlib.nullcontext()", -14)])
def test_a_fork_waits_for_an_import(tmp_path: Path, guard: str, status: int) -> None:
    """And where it does not, the child waits for ever: if that comes out otherwise, CPython needs no help any more."""
    (tmp_path / "slow.py").write_text(_SLOW)
    program = [sys.executable, "-c", _PROGRAM.format(guard)]
    path = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = run(program, 60, env=path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == status, done.stderr


def _late_imports(tree: ast.AST, guarded: bool = False) -> list[int]:
    """The lines of imports in functions that no ``with no_fork`` guards."""
    found = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found += [] if guarded else [node.lineno]
        elif isinstance(node, ast.With):
            names = [item.context_expr.id for item in node.items if isinstance(item.context_expr, ast.Name)]
            found += _late_imports(node, guarded or "no_fork" in names)
        else:
            found += _late_imports(node, guarded)
    return found


def test_every_import_in_a_function_holds_off_forks() -> None:
    unguarded = []
    for path in _SOURCES.rglob("*.py"):
        functions = (
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, (ast.FunctionDef, ast.Lambda))
        )
        unguarded += [f"{path.relative_to(_SOURCES)}:{line}" for each in functions for line in _late_imports(each)]
    assert not unguarded
