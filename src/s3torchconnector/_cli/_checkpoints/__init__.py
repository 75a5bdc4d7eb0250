"""``s3torch checkpoints``: the numbered checkpoints of ``S3CheckpointManager``. PyTorch is not imported."""

from __future__ import annotations

import typer

from s3torchconnector._cli._checkpoints._list import list_steps
from s3torchconnector._cli._checkpoints._remove import clean_steps, delete_steps
from s3torchconnector._cli._checkpoints._verify import verify_steps
from s3torchconnector._cli._endings import with_exit_code
from s3torchconnector._cli._help import Command

__all__ = ["group"]

group = typer.Typer(no_args_is_help=True, help="List, verify, clean and delete numbered checkpoints.")
for _name, _command in (
    ("list", list_steps),
    ("verify", verify_steps),
    ("clean", clean_steps),
    ("delete", delete_steps),
):
    group.command(_name, cls=Command)(with_exit_code(_command))
