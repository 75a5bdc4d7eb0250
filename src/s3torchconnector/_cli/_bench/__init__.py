"""``s3torch bench``: how fast S3 is from here, with which settings; and a timeline of the requests of an epoch."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from s3torchconnector._cli._bench._limits import Share, parse_size
from s3torchconnector._cli._connection import Connection, connects
from s3torchconnector._cli._location import Prefix
from s3torchconnector._cli._output import Json, print_json, print_line, tell
from s3torchconnector._late_imports import no_fork

if TYPE_CHECKING:
    from s3torchconnector._cli._bench._epoch import Epoch
    from s3torchconnector._cli._bench._sweep import Result

_PICTURES = (".png", ".svg", ".pdf")
_EPOCH_WORKERS = 2
_MOST_REQUESTS = 200_000  # of all runs together, however small the objects are

Write = Annotated[
    bool, typer.Option("--write", help="Also store objects below PREFIX/.s3torch-bench-..., and delete them again.")
]
Seconds = Annotated[float, typer.Option(min=0.1, help="Time for all measurements together.")]
MostBytes = Annotated[
    int, typer.Option("--max-bytes", parser=parse_size, metavar="SIZE", help="Most bytes to transfer, as in 500MB.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Largest number of DataLoader workers to try, by default that of processors. With --trace, the number.",
    ),
]
LookAhead = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="OBJECTS",
        help="With --trace: how many objects each worker fetches early (default: as datasets do).",
    ),
]
Trace = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Read each object once, and write the requests as a Chrome trace (Perfetto)."),
]
Plot = Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the result: PNG, SVG or PDF.")]


@connects
def bench(
    prefix: Prefix,
    *,
    write: Write = False,
    seconds: Seconds = 60.0,
    max_bytes: MostBytes = "10GiB",  # type: ignore[assignment]
    workers: Workers = None,
    look_ahead: LookAhead = None,
    trace: Trace = None,
    plot: Plot = None,
    as_json: Json = False,
    connection: Connection,
) -> None:
    """Measure S3 from here with your own objects, and recommend workers and settings.

    Reads small objects below the prefix, and a large one if there is one. Says what the requests cost before it begins.
    """
    for file in (trace, plot):
        _check_writable(file)
    if plot is not None:
        _check_picture(plot)
    share = Share(seconds, max_bytes, _MOST_REQUESTS)
    with no_fork:  # torch takes seconds
        from s3torchconnector._cli._bench._epoch import trace_epoch
        from s3torchconnector._cli._bench._measurement import Settings
        from s3torchconnector._cli._bench._sweep import Sweep, processors
    if trace is not None:
        settings = Settings(_EPOCH_WORKERS if workers is None else workers, look_ahead)
        _show_epoch(trace_epoch(connection, prefix, settings, share, write=write), trace, plot, as_json)
    else:
        most = processors() if workers is None else workers
        _show(Sweep(connection, prefix, share, most, write).run(), plot, as_json)


def _show(result: Result, plot: Path | None, as_json: bool) -> None:
    with no_fork:
        from s3torchconnector._cli._bench._report import document, print_report
    if as_json:
        print_json(document(result))
    else:
        print_report(result)
    if plot is not None:
        with no_fork:
            from s3torchconnector._cli._bench._plot import plot_runs
        plot_runs(result, plot)


def _show_epoch(epoch: Epoch, trace: Path, plot: Path | None, as_json: bool) -> None:
    epoch.write(trace)
    if as_json:
        print_json(epoch.document())
    else:
        print_line(epoch.summary())
    tell(f"{trace} has the requests; open it in https://ui.perfetto.dev or chrome://tracing")
    if plot is not None:
        with no_fork:
            from s3torchconnector._cli._bench._plot import plot_epoch
        plot_epoch(epoch, plot)


def _check_writable(file: Path | None) -> None:
    """Before anything is measured: it would be lost."""
    if file is not None and not (file.parent.is_dir() and os.access(file if file.exists() else file.parent, os.W_OK)):
        raise typer.BadParameter(f"{file} cannot be written: its folder does not exist, or is not yours")


def _check_picture(plot: Path) -> None:
    if plot.suffix.lower() not in _PICTURES:
        raise typer.BadParameter(f"{plot} is no picture: its name must end in {', '.join(_PICTURES)}")
    if importlib.util.find_spec("matplotlib") is None:
        raise typer.BadParameter("--plot needs the package matplotlib. From the checkout, run: pip install '.[plot]'")
