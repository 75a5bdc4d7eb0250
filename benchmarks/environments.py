"""The environments of other packages: for each a virtual environment that holds it in one fixed version.

PyTorch is not installed twice: a .pth file puts this environment's packages after the other's own, so that
all sides run on the same PyTorch and the other's package is found first. Editable installations do not
leak in: .pth files of a folder that was itself added by a .pth file are not read.
"""

from __future__ import annotations

import os
import subprocess
import sysconfig
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class EnvironmentFault(Exception):
    """An environment cannot be made or holds something else; the text says why."""


@dataclass(frozen=True)
class Environment:
    """What an environment has to hold: `module` in `version`, which comes with `packages`, as `imports` show."""

    module: str
    version: str
    packages: tuple[str, ...]
    imports: tuple[str, ...] = ()

    def interpreter(self, folder: Path) -> Path:
        """The interpreter below `folder`, which is created if needed.

        Raises:
            EnvironmentFault: the packages cannot be installed, or another version is found in their place.
        """
        folder = folder.resolve()
        python = folder / "bin" / "python"
        if not python.exists() or not self._installed(python):
            self._create(folder, python)
        code = f"import {self.module} as m, torch; print(m.__version__, m.__file__)"
        check = _run(python, code, folder)
        version, _, file = check.stdout.strip().partition(" ")
        if version != self.version or folder not in Path(file).resolve().parents:
            raise EnvironmentFault(
                f"{folder} should hold {self.module} {self.version}; remove it and try again\n"
                f"{check.stdout}{check.stderr}"
            )
        return python

    def _installed(self, python: Path) -> bool:
        code = f"import {', '.join((*self.imports, self.module))} as m; assert m.__version__ == {self.version!r}"
        return _run(python, code).returncode == 0

    def _create(self, folder: Path, python: Path) -> None:
        try:
            venv.create(folder, with_pip=True, clear=True)
        except (OSError, subprocess.CalledProcessError) as error:  # such as a Python without ensurepip
            raise EnvironmentFault(f"{folder}: no virtual environment can be made here: {error}") from error
        # The shared packages come after the installation: pip must not take ours for the one it is asked for.
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", *self.packages]
        done = subprocess.run([str(python), *install], capture_output=True, text=True, check=False)
        if done.returncode:
            raise EnvironmentFault(f"installing {' '.join(self.packages)} failed:\n{done.stderr}")
        place = _run(python, "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
        (Path(place) / "shared-packages.pth").write_text(f"{sysconfig.get_path('purelib')}\n")


def variables(given: Mapping[str, str]) -> dict[str, str]:
    """`given` for a process of another package: without PYTHONPATH, which may lead to ours."""
    return {name: value for name, value in given.items() if name != "PYTHONPATH"}


def _run(python: Path, code: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(python), "-c", code]
    return subprocess.run(command, env=variables(os.environ), capture_output=True, text=True, check=False, cwd=cwd)
