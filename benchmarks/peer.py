"""The environment of the peer: the native connector in a virtual environment of its own.

PyTorch is not installed twice: a .pth file puts this environment's packages after the peer's own, so that
both sides run on the same PyTorch and the peer's connector is found first. Editable installations do not
leak in: .pth files of a folder that was itself added by a .pth file are not read.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping
from pathlib import Path

VERSION = "1.5.0"
# tenacity is what its extra "dcp" asks for.
_PACKAGES = (f"s3torchconnector=={VERSION}", f"s3torchconnectorclient=={VERSION}", "tenacity")
_CHECK = "import s3torchconnector as s, torch; print(s.__version__, s.__file__)"


class PeerError(Exception):
    """The peer's environment cannot be made or holds something else."""


def interpreter(folder: Path) -> Path:
    """The peer's interpreter below `folder`, which is created if needed.

    Raises:
        PeerError: the peer cannot be installed, or another version is found in its place.
    """
    folder = folder.resolve()
    python = folder / "bin" / "python"
    if not python.exists() or not _installed(python):
        _create(folder, python)
    check = subprocess.run(
        [python, "-c", _CHECK], env=environment(os.environ), capture_output=True, text=True, check=False, cwd=folder
    )
    version, _, file = check.stdout.strip().partition(" ")
    if version != VERSION or folder not in Path(file).resolve().parents:
        raise PeerError(
            f"{folder} should hold s3torchconnector {VERSION}; remove it and try again\n{check.stdout}{check.stderr}"
        )
    return python


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """`variables` for a process of the peer: without PYTHONPATH, which may lead to ours."""
    return {name: value for name, value in variables.items() if name != "PYTHONPATH"}


def _installed(python: Path) -> bool:
    command = [str(python), "-c", "import s3torchconnector, tenacity"]
    return subprocess.run(command, env=environment(os.environ), capture_output=True, check=False).returncode == 0


def _create(folder: Path, python: Path) -> None:
    venv.create(folder, with_pip=True, clear=True)
    # The shared packages come after the installation: pip must not take ours for the one it is asked for.
    install = [
        str(python),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        *_PACKAGES,
    ]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PeerError(f"installing {' '.join(_PACKAGES)} failed:\n{done.stderr}")
    place = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    shared = Path(place.stdout.strip()) / "shared-packages.pth"
    shared.write_text(f"{sysconfig.get_path('purelib')}\n")


if __name__ == "__main__":
    print(interpreter(Path(sys.argv[1])))
