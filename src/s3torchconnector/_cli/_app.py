"""The commands of ``s3torch``."""

from __future__ import annotations

from typing import Annotated

import typer

from s3torchconnector._cli._bench import bench
from s3torchconnector._cli._cat import cat
from s3torchconnector._cli._checkpoints import checkpoints
from s3torchconnector._cli._cp import cp
from s3torchconnector._cli._doctor import doctor
from s3torchconnector._cli._du import du
from s3torchconnector._cli._endings import with_exit_code
from s3torchconnector._cli._inspect import inspect
from s3torchconnector._cli._ls import ls
from s3torchconnector._cli._manifests import manifests
from s3torchconnector._cli._output import print_line
from s3torchconnector._cli._rm import rm
from s3torchconnector._version import __version__

app = typer.Typer(name="s3torch", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

for _command in (ls, du, cat, cp, rm, inspect, bench, doctor):
    app.command()(with_exit_code(_command))
app.add_typer(checkpoints, name="checkpoints")
app.add_typer(manifests, name="manifest")


def _print_version(asked: bool) -> None:
    if asked:
        print_line(f"s3torch {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Look at, move and check what is in S3."""
