"""``s3torch manifest``: manifests of ``S3Manifest`` are made, looked at, and compared with each other and with buckets.

What checks the columns of a manifest uses PyTorch, so these commands import it: when they are called.
"""

from __future__ import annotations

import typer

from s3torchconnector._cli._endings import with_exit_code
from s3torchconnector._cli._help import Command
from s3torchconnector._cli._manifests._create import create
from s3torchconnector._cli._manifests._diff import diff
from s3torchconnector._cli._manifests._info import info
from s3torchconnector._cli._manifests._verify import verify

__all__ = ["group"]

group = typer.Typer(no_args_is_help=True, help="Make, show, compare and verify manifests.")
for _command in (create, info, diff, verify):
    group.command(cls=Command)(with_exit_code(_command))
