"""The options that choose objects by what a listing says of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from s3torchconnector._cli._bench._limits import parse_size

_PANEL = "Filters"

Suffixes = Annotated[
    list[str] | None,
    typer.Option("--suffix", help="Only keys that end so, as in .jpg. Can be repeated.", rich_help_panel=_PANEL),
]
Glob = Annotated[
    str | None,
    typer.Option(help="Only keys that match as a whole, as in 'train/*/left-*.png'.", rich_help_panel=_PANEL),
]
MinSize = Annotated[
    int | None,
    typer.Option(parser=parse_size, metavar="SIZE", help="Only objects so large, as in 1KiB.", rich_help_panel=_PANEL),
]
MaxSize = Annotated[
    int | None,
    typer.Option(parser=parse_size, metavar="SIZE", help="Only objects no larger.", rich_help_panel=_PANEL),
]
StorageClasses = Annotated[
    list[str] | None,
    typer.Option("--storage-class", help="Only this storage class. Can be repeated.", rich_help_panel=_PANEL),
]


@dataclass(frozen=True)
class Chosen:
    """The filters that were given."""

    suffixes: list[str] | None
    glob: str | None
    min_size: int | None
    max_size: int | None
    storage_classes: list[str] | None

    def arguments(self) -> dict[str, Any]:
        """As arguments of ``S3Manifest.from_prefix``; empty if there are none."""
        return {name: value for name, value in vars(self).items() if value is not None and value != []}
