"""Runs ``s3torch`` as a shell would: in a process of its own, with output that is no terminal."""

from __future__ import annotations

import os
import subprocess
import sys

_TIMEOUT = 60.0  # seconds


def s3torch(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end.

    Args:
        arguments: as on the command line.
        environment: variables that are set for the command only.
    """
    return subprocess.run(
        [sys.executable, "-m", "s3torchconnector", *arguments],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        env={**os.environ, **environment},
        check=False,
    )
