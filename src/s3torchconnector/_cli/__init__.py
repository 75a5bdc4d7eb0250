"""``s3torch``, the command. Also ``python -m s3torchconnector``.

Each module is one command, or one group of them; ``_app`` lists them. What they share: ``_connection`` (the options
that say how S3 is reached, and the client they make), ``_location`` (URIs), ``_output`` (JSON or tables) and
``_endings`` (errors become exit codes).

Exit codes: 0, done; 1, it failed, or a check found something wrong; 2, wrong usage; 130, Ctrl-C; 141, the reader of a
pipe has ended.
"""

from __future__ import annotations

import io
import os
import sys
from typing import BinaryIO, cast

from s3torchconnector._late_imports import no_fork

_INTERRUPTED = 130  # exit code, as in ``_endings``, which may be under import still


def main() -> None:
    """Run ``s3torch`` with the arguments of the process, and end the process with its exit code."""
    _open_closed_streams()
    try:
        _run()
    except KeyboardInterrupt:  # while it imports; commands say more
        raise SystemExit(_INTERRUPTED) from None


def _run() -> None:
    try:
        with no_fork:
            from s3torchconnector._cli._app import COMMANDS, make_app

        app = make_app(*COMMANDS.keys() & sys.argv[1:2])  # all for --help, and for what is none of them
    except ModuleNotFoundError as error:
        if error.name not in ("rich", "typer"):
            raise
        sys.stderr.write(f"s3torch needs the package {error.name}. From the checkout, run: pip install '.[cli]'\n")
        raise SystemExit(2) from None
    app(prog_name="s3torch")


def _open_closed_streams() -> None:
    """Python has None for a standard stream that was closed when the process was started (``>&-``).

    Then every read from them, and every write to them, fails: so lost output never seems delivered, and missing input
    is never stored as empty. Only text on standard error is discarded.
    """
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_WRONLY), "r")
    if sys.stdout is None:
        raw = os.fdopen(os.open(os.devnull, os.O_RDONLY), "wb", buffering=0)
        sys.stdout = io.TextIOWrapper(cast(BinaryIO, raw), encoding="utf-8", write_through=True)
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
