"""Programs of ``warm_python`` are those of an interpreter: what they say, how they end, what they find around them."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.servers.warm import WarmPython


def test_it_says_and_ends_as_a_program_does(warm_python: WarmPython) -> None:
    """Also after its last line: threads are waited for, and what is registered for the end is called."""
    text = """
import atexit, os, sys, threading
assert "s3torchconnector" not in sys.modules and "torch" in sys.modules
assert "WarmPython" not in globals() and "signal" not in globals()
late = threading.Timer(0.05, print, ["thread"])
late.start()
atexit.register(print, "end")
print(sys.argv[1], os.environ["GIVEN"], "PATH" in os.environ)
sys.exit(3)
"""
    done = warm_python.run("-c", text, "argument", env={"GIVEN": "variable"})
    assert (done.returncode, done.stdout, done.stderr) == (3, "argument variable False\nthread\nend\n", "")


def test_its_errors_are_seen(warm_python: WarmPython, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import warnings\nwarnings.warn('beware')\nassert False, 'wrong'\n")
    done = warm_python.run("program.py", cwd=tmp_path)
    assert done.returncode == 1
    assert "beware" in done.stderr
    assert done.stderr.endswith("AssertionError: wrong\n")
    assert "beware" not in warm_python.run("-W", "ignore", "program.py", cwd=tmp_path).stderr


def test_it_ends_by_signals_and_in_time(warm_python: WarmPython) -> None:
    program = warm_python.start("-c", "print(input(), flush=True); input()")
    program.stdin.write("line\n")
    program.stdin.flush()
    assert program.stdout.readline() == "line\n"
    program.send_signal(signal.SIGTERM)
    program.communicate()
    assert program.returncode == -signal.SIGTERM
    with pytest.raises(subprocess.TimeoutExpired):
        warm_python.run("-c", "import threading; threading.Event().wait()", seconds=0.1)
