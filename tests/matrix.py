"""`make matrix`: the tests on every installed interpreter, each in its own virtual environment.

Looks for the interpreters of ``VERSIONS`` on PATH and among pyenv's. Each gets build/matrix/<version> with the
development requirements. If PyTorch cannot be installed there, the tests of the layers that do not need it run alone.

The row ``floors`` has the oldest versions that ``pyproject.toml`` allows, from ``requirements-floors.txt``.
Its warnings are no errors: they are those of old packages. An environment takes up to 5 GB.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path
from typing import Annotated

import typer

VERSIONS = ("3.10", "3.11", "3.12", "3.13")
FLOORS = "floors"
_ROOT = Path(__file__).parents[1]
_BUILD = _ROOT / "build" / "matrix"
# Tests that call what only newer packages have, and tests of this repository, which need what development installs.
_NEED_NEWER = (
    "tests/cli/test_inspect.py", "tests/cli/test_checkpoints.py",
    "tests/checkpoint_manager/test_manager.py::test_tensors_are_sent_from_their_memory_and_summed_once",
    "tests/dcp/test_killed_ranks.py", "tests/dcp/test_ranks.py", "tests/dcp/test_save_and_load.py",
    "tests/dcp/test_layout.py::test_numbers_and_slices_are_where_the_layout_says",
    "tests/dcp/test_metadata.py::test_descriptions_of_checkpoints_round_trip[3]",
    "tests/dcp/test_metadata.py::test_descriptions_of_checkpoints_round_trip[4]",
    "tests/dcp/test_metadata.py::test_descriptions_of_checkpoints_round_trip[5]",
    "tests/dcp/test_metadata.py::test_a_save_finds_the_files_of_any_description",
    "tests/dcp/test_metadata.py::test_what_a_program_has_declared_safe_is_read",
    "tests/dcp/test_metadata.py::test_a_planner_that_describes_by_its_own_class",
    "tests/dcp/test_commit.py::test_a_planner_that_caches_plans_gets_new_file_names",
    "tests/identity/test_endpoints.py::test_directory_bucket_without_a_session",
    "tests/listing/test_list_all.py::test_listing_all_of_a_directory_bucket[False]",
    "tests/integrity/test_checksums.py::TestEach::test_combines_any_length_as_awscrt_does",
    "tests/streaming/test_streaming_dataset.py::test_a_loader_that_keeps_no_order_has_no_state",
    "tests/streaming/test_accelerate.py", "tests/streaming/test_hugging_face_trainer.py",
    "tests/docs", "tests/soak", "tests/test_benchmark_report.py", "tests/test_figures.py", "tests/test_dist.py",
    "tests/test_docstrings.py", "tests/test_public_surface.py",
)  # fmt: skip
_NEEDS_TORCH = ("torch", "lightning", "safetensors")


def main(
    arguments: Annotated[list[str] | None, typer.Argument(help="Options and paths for pytest.")] = None,
    version: Annotated[list[str] | None, typer.Option(help="Only this row (3.12, floors); may be repeated.")] = None,
) -> None:
    """Run the tests on each interpreter; exits with 1 if one of them fails, or none is found."""
    outcomes = {each: _run(each, arguments or []) for each in version or (*VERSIONS, FLOORS)}
    for each, outcome in outcomes.items():
        print(f"{each}: {outcome}")
    passed = [outcome for outcome in outcomes.values() if outcome.startswith("passed")]
    failed = [outcome for outcome in outcomes.values() if outcome.startswith("failed")]
    sys.exit(1 if failed or not passed else 0)


def _run(version: str, arguments: list[str]) -> str:
    interpreter = _interpreter(VERSIONS[0] if version == FLOORS else version)
    if interpreter is None:
        return "not found on this machine"
    python = _BUILD / version / "bin" / "python"
    print(f"== {version}: {interpreter}", flush=True)
    if not python.exists():
        subprocess.run([interpreter, "-m", "venv", _BUILD / version], check=True)
    has_torch = _install_floors(python) if version == FLOORS else _install(python)
    command = [python, "-m", "pytest", "-q", "-n", "auto", "--maxprocesses=4", "--dist=loadfile", *arguments]
    if version == FLOORS:
        command += ["-o", "filterwarnings=default", *(_without(each) for each in _NEED_NEWER)]
    if not has_torch:
        command += [f"--ignore={path}" for path in _files_that_need_torch(python)]
    done = subprocess.run(command, cwd=_ROOT, check=False)
    return f"{'failed' if done.returncode else 'passed'}{'' if has_torch else ', without PyTorch'}"


def _interpreter(version: str) -> str | None:
    """The path of a working interpreter of this version."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(f"python{version}"), *sorted(map(str, pyenv.glob(f"{version}.*/bin/python")))]
    for candidate in filter(None, candidates):
        shown = subprocess.run([candidate, "--version"], capture_output=True, text=True, check=False)
        if shown.stdout.startswith(f"Python {version}."):
            return candidate
    return None


def _install(python: Path) -> bool:
    """Install what development needs; False if that was only possible without PyTorch."""
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*pip, "-r", "requirements-dev.txt"], cwd=_ROOT, check=False).returncode == 0:
        return True
    subprocess.run([*pip, *_requirements_without_torch()], cwd=_ROOT, check=True)
    subprocess.run([*pip, "--no-deps", "-e", "."], cwd=_ROOT, check=True)
    return False


def _without(path: str) -> str:
    """The option of pytest that leaves out a file, a folder or a test."""
    return f"--deselect={path}" if "::" in path else f"--ignore={path}"


def _install_floors(python: Path) -> bool:
    """Install the oldest versions that are allowed."""
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", "requirements-floors.txt"], cwd=_ROOT, check=True)
    subprocess.run([*pip, "--no-deps", "-e", "."], cwd=_ROOT, check=True)
    return True


def _requirements_without_torch() -> list[str]:
    names = [line.partition(";")[0].strip() for line in requires("s3torchconnector") or []]
    return [name for name in names if not name.startswith(_NEEDS_TORCH)]


def _files_that_need_torch(python: Path) -> list[str]:
    collecting = [python, "-m", "pytest", "-q", "--collect-only", "--continue-on-collection-errors"]
    shown = subprocess.run(collecting, cwd=_ROOT, capture_output=True, text=True, check=False).stdout
    return re.findall(r"^ERROR (\S+\.py)", shown, re.MULTILINE)


if __name__ == "__main__":
    typer.run(main)
