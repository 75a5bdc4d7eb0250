"""From the files of the repository to a site, by Zensical."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from website.pages import ROOT
from website.staging import SiteError, stage

# Python's collector would look through all that is kept until the end, again and again: 40% of the time.
_ZENSICAL = "import gc, runpy; gc.disable(); runpy.run_module('zensical', run_name='__main__')"


def build(folder: Path) -> Path:
    """Write the site to ``folder/docs``, and return its first page.

    Raises:
        SiteError: a page, a link or a name is broken. The text says which.
    """
    stage(folder)
    return render(folder)


def render(folder: Path) -> Path:
    """Write the site that ``stage`` has prepared. Every warning is an error."""
    shutil.rmtree(folder / "docs", ignore_errors=True)
    command = [sys.executable, "-c", _ZENSICAL, "build", "--strict", "--clean", "-f", str(folder / "mkdocs.yml")]
    # The docstrings are read from this checkout, by an extension that is in it, too.
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    variables = {**os.environ, "PYTHONPATH": path}
    built = subprocess.run(command, cwd=ROOT, env=variables, check=False, capture_output=True, text=True)
    if built.returncode:
        raise SiteError(_plain(built.stdout + built.stderr))
    return folder / "docs/index.html"


def _plain(output: str) -> str:
    """What Zensical says, without colours, and without its own traceback after a list of warnings."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", output)
    return text.partition("Traceback")[0] if "Aborted because --strict flag is set" in text else text
