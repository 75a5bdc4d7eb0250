"""Runs ``s3torch``: as a shell would, in a process of its own, or in this one; with output that is no terminal."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys

import pytest

from s3torchconnector._cli._app import app

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


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end in this process, whose environment it has. Costs no start of Python."""
    output, errors = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors), pytest.raises(SystemExit) as end:
        app(arguments, prog_name="s3torch")
    texts = [stream.buffer.getvalue().decode() for stream in (output, errors)]  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(arguments, end.value.code, *texts)  # type: ignore[arg-type]
