"""The tests of the plugin with the oldest Lightning that is declared, and with one of 2025."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.processes import run

_ROOT = Path(__file__).parents[2]
_TESTS = [f"tests/lightning/{name}.py" for name in ("test_fit", "test_plugin", "test_fsspec")]
_SECONDS = 600.0  # they take 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "beside"),
    [("2.2.5", ["setuptools==69.5.1"]), ("2.5.5", [])],  # Lightning 2.2 imports pkg_resources
)
def test_the_plugin_works_with_older_lightning(version: str, beside: list[str]) -> None:
    folder = _ROOT / "build" / f"lightning-{version}"
    if not (folder / "complete").exists():
        packages = [f"lightning=={version}", f"pytorch-lightning=={version}", *beside]
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", folder]
        subprocess.run([*install, *packages], check=True, stdin=subprocess.DEVNULL)
        (folder / "complete").touch()
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    shown = run([sys.executable, "-c", "import lightning; print(lightning.__version__)"], 60.0, env=environment)
    assert shown.stdout.strip() == version
    # They warn of much that is outdated in themselves.
    options = ["-q", "-p", "no:cacheprovider", "-o", "filterwarnings=default"]
    done = run([sys.executable, "-m", "pytest", *options, *_TESTS], _SECONDS, env=environment, cwd=_ROOT)
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
