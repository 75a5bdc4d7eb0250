"""`make dist`: builds the wheel and the sdist in `dist/`, and checks them.

The wheel is built from the sdist, so the sdist has what a build needs. Both are built a second time, and must be the
same to the byte. Dates in them are that of the last commit, or of SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
_BEYOND_SOURCES = {  # what a wheel has beside the modules
    "s3torchconnector/py.typed",
    "s3torchconnectorclient/py.typed",
}
_IN_SDIST = (
    "tests/conftest.py",
    "docs/guide/README.md",
    "examples/train_digits.py",
    "benchmarks/__main__.py",
    "Makefile",
)


class Distribution(NamedTuple):
    """The two files of a release."""

    sdist: Path
    wheel: Path


def main() -> None:
    """Build, check, and say where the files are; exits with 1 if something is wrong with them."""
    built = build(ROOT / "dist")
    with tempfile.TemporaryDirectory() as again:
        wrong = [*check(built), *differences(built, build(Path(again)))]
    print("\n".join(wrong) or f"{built.sdist}\n{built.wheel}\nbuilt twice, and the same to the byte")
    sys.exit(1 if wrong else 0)


def build(folder: Path) -> Distribution:
    """Build both into ``folder``, with the build backend that ``pyproject.toml`` asks for and nothing else."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": _date()}
    command = [sys.executable, "-m", "build", "--outdir", folder, ROOT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the build failed:\n{done.stdout}\n{done.stderr}")
    version = _version()
    return Distribution(
        folder / f"s3torchconnector-{version}.tar.gz", folder / f"s3torchconnector-{version}-py3-none-any.whl"
    )


def check(built: Distribution) -> list[str]:
    """What is wrong with the two files."""
    command = [sys.executable, "-m", "twine", "check", "--strict", *built]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wrong = [] if done.returncode == 0 else [done.stdout + done.stderr]
    in_sdist, in_wheel = _files_of_sdist(built.sdist), _files_of_wheel(built.wheel)
    sources = {path.removeprefix("src/") for path in in_sdist if path.startswith("src/")}
    wrong += [f"{path} is not in the wheel" for path in sorted((sources | _BEYOND_SOURCES) - in_wheel)]
    wrong += [f"{path} does not belong into a wheel" for path in sorted(in_wheel - sources)]
    wrong += [f"{path} is not in the sdist" for path in _IN_SDIST if path not in in_sdist]
    return wrong


def differences(one: Distribution, other: Distribution) -> list[str]:
    """What differs between two builds of the same sources."""
    pairs = zip(one, other, strict=True)
    return [f"{a.name} is another file when it is built again" for a, b in pairs if a.read_bytes() != b.read_bytes()]


def _files_of_sdist(sdist: Path) -> set[str]:
    with tarfile.open(sdist) as archive:
        return {member.name.partition("/")[2] for member in archive if member.isfile()}


def _files_of_wheel(wheel: Path) -> set[str]:
    """Without those of ``.dist-info``."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    return {name for name in names if not name.startswith(f"s3torchconnector-{_version()}.dist-info/")}


def _version() -> str:
    text = (ROOT / "src/s3torchconnector/_version.py").read_text(encoding="utf-8")
    [version] = re.findall(r'^__version__ = "(.*)"', text, re.MULTILINE)
    return version


def _date() -> str:
    """Seconds since 1970, for everything that has a date in it."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return given
    command = ["git", "-C", ROOT, "log", "-1", "--format=%ct"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return found or "1767225600"  # in an unpacked sdist there are no commits


if __name__ == "__main__":
    main()
