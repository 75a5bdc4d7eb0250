"""The commands of ``s3torch``."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer

from s3torchconnector._cli._endings import with_exit_code
from s3torchconnector._cli._help import Command
from s3torchconnector._cli._output import print_line
from s3torchconnector._late_imports import no_fork
from s3torchconnector._version import __version__

# The module of each, in the order of --help. There, the command has its own name, or is a group called ``group``.
COMMANDS = {
    "ls": "_ls",
    "du": "_du",
    "cat": "_cat",
    "cp": "_cp",
    "rm": "_rm",
    "mb": "_mb",
    "inspect": "_inspect",
    "bench": "_bench",
    "doctor": "_doctor",
    "checkpoints": "_checkpoints",
    "manifest": "_manifests",
}


def make_app(*names: str) -> typer.Typer:
    """The command with these subcommands, or with all: importing all takes twice as long as importing one."""
    app = typer.Typer(name="s3torch", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    app.callback()(options)
    for name in names or COMMANDS:
        with no_fork:
            module = import_module(f"s3torchconnector._cli.{COMMANDS[name]}")
        if hasattr(module, "group"):
            app.add_typer(module.group, name=name)
        else:
            app.command(cls=Command)(with_exit_code(getattr(module, name)))
    return app


def _print_version(asked: bool) -> None:
    if asked:
        print_line(f"s3torch {__version__}")
        raise typer.Exit


def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Look at, move and check what is in S3."""
