"""What commands print: results on standard output, all else on standard error.

Where standard output is no terminal there is no colour, and lines are not folded. ``--json`` prints one document, or
one line for each object where there may be millions.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime, timezone
from typing import Annotated, Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Human = Annotated[bool, typer.Option("--human-readable", "-h", help="Print sizes as KiB, MiB, GiB.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print a line for each object.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only print what would be done.")]

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def print_json(document: Any) -> None:
    """Print a value as one line of JSON."""
    print_line(json.dumps(document, default=str))


def print_line(text: str) -> None:
    """Print a line as it is, not folded and without colour."""
    sys.stdout.write(text + "\n")


def print_table(*columns: str, rows: list[list[str]], title: str | None = None) -> None:
    """Print a table on standard output. Columns whose name begins with ``>`` are aligned to the right.

    Without a terminal, these are lines with at least two blanks between columns, however long they get.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        _print_plain(columns, cells, title)
        return
    table = Table(title=title, box=None, pad_edge=False, title_justify="left")
    for name in columns:
        right = name.startswith(">")
        table.add_column(name.lstrip(">"), justify="right" if right else "left", no_wrap=right, overflow="fold")
    for row in cells:
        table.add_row(*row)
    stdout_console().print(table)


def _print_plain(columns: tuple[str, ...], rows: list[list[str]], title: str | None) -> None:
    lines = [[name.lstrip(">") for name in columns], *rows]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    if title is not None:
        print_line(title)
    for line in lines:
        padding = (" " * (width - cell_len(cell)) for width, cell in zip(widths, line, strict=True))
        cells = zip(columns, line, padding, strict=True)
        print_line("  ".join(pad + cell if name.startswith(">") else cell + pad for name, cell, pad in cells).rstrip())


def stdout_console() -> Console:
    """The console of standard output, as wide as a table needs where it is no terminal."""
    return Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 10_000)


def tell(text: str) -> None:
    """Say something to the person, on standard error."""
    sys.stderr.write(text + "\n")


def readable(size: float) -> str:
    """A number of bytes in binary units.

    >>> from s3torchconnector._cli._output import readable
    >>> readable(1536)
    '1.5 KiB'
    """
    exponent = 0
    while abs(size) >= 1024 and exponent < len(_UNITS) - 1:
        size /= 1024
        exponent += 1
    return f"{size:.1f} {_UNITS[exponent]}" if exponent else f"{size:.0f} B"


def printable(text: str) -> str:
    """A key or a path for a line of text. What would break the line, or command a terminal, is escaped."""
    return text if text.isprintable() else repr(text)[1:-1]


def local_time(seconds: float) -> str:
    """A time (seconds since 1970) as people read it, in their time zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def iso_time(seconds: float) -> str:
    """A time as programs read it."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()
