"""Pictures by matplotlib: the speed of each run, and the timeline of an epoch. PNG or SVG, by the file's name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from s3torchconnector._cli._bench._epoch import Epoch
from s3torchconnector._cli._bench._measurement import Measurement
from s3torchconnector._cli._bench._sweep import Result, describe_run, rate
from s3torchconnector._cli._file_errors import named_in_errors
from s3torchconnector._plural import counted
from s3torchconnector._wire import TracedRequest

_OURS, _WAIT, _FAILED, _INK, _PAPER = "#1f6feb", "#b6c2d1", "#d1570a", "#1f2328", "#ffffff"
_WIDTH, _DPI = 8.4, 200  # inches, dots per inch


def plot_runs(result: Result, path: Path) -> None:
    """A bar for each run: small objects by objects/s, large ones by Gbit/s."""
    small = [each for each in result.measured if each.work == "small"]
    large = [each for each in result.measured if each.work != "small"]
    groups = [
        (title, group, [each.objects_per_second if group is small else each.gbps for each in group])
        for title, group in (("Small objects, objects/s", small), ("Large objects, Gbit/s", large))
        if group
    ]
    figure = _figure(0.36 * len(result.measured) + 0.9 * len(groups))
    sizes = [len(group) + 1 for _, group, _ in groups]
    for axes, (title, group, rates) in zip(
        figure.subplots(len(groups), squeeze=False, height_ratios=sizes)[:, 0], groups, strict=True
    ):
        _bars(axes, group, rates)
        axes.set_title(title, loc="left", fontsize=10, color=_INK)
    _save(figure, path)


def _bars(axes: Axes, measured: Sequence[Measurement], rates: Sequence[float]) -> None:
    axes.barh(range(len(rates)), rates, height=0.7, color=_OURS)
    for place, each in enumerate(measured):
        axes.annotate(
            rate(each),
            (rates[place], place),
            xytext=(5, 0),
            textcoords="offset points",
            verticalalignment="center_baseline",
            fontsize=8.5,
            color=_INK,
        )
    axes.set_yticks(range(len(rates)), [describe_run(each).removeprefix("small objects, ") for each in measured])
    axes.set_xlim(0, 1.5 * max(rates))
    axes.invert_yaxis()
    _bare(axes)


def plot_epoch(epoch: Epoch, path: Path) -> None:
    """A row for each connection, grouped by process; on it, how each request waited and received."""
    rows = {
        connection: place
        for place, connection in enumerate(sorted({(each.process, each.connection) for each in epoch.requests}))
    }
    figure = _figure(max(2.0, min(12.0, 0.09 * len(rows) + 1.1)))
    axes = figure.subplots()
    begin = min(each.asked for each in epoch.requests)
    for row, requests in _by_row(epoch.requests, rows).items():
        _row(axes, row, requests, begin)
    _name_processes(axes, epoch, rows)
    axes.set_xlabel("milliseconds", fontsize=9, color=_INK)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(left=0)
    handles = [
        Patch(color=_WAIT, label="waits for the first byte"),
        Patch(color=_OURS, label="receives"),
        Patch(color=_FAILED, label="failed, or not needed"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    _bare(axes, bottom=True)
    _save(figure, path)


def _by_row(requests: Sequence[TracedRequest], rows: dict[tuple[int, int], int]) -> dict[int, list[TracedRequest]]:
    found: dict[int, list[TracedRequest]] = {}
    for each in requests:
        found.setdefault(rows[each.process, each.connection], []).append(each)
    return found


def _row(axes: Axes, row: int, requests: Sequence[TracedRequest], begin: float) -> None:
    def spans(pairs: Sequence[tuple[float, float]], color: str) -> None:
        bars = [((start - begin) * 1e3, (end - start) * 1e3) for start, end in pairs]
        axes.broken_barh(bars, (row - 0.4, 0.8), facecolors=color, edgecolors="none")

    good = [each for each in requests if not each.failure]
    spans([(each.sent, each.ended) for each in requests if each.failure], _FAILED)
    spans([(each.sent, each.first_byte) for each in good if each.first_byte is not None], _WAIT)
    spans([(each.first_byte, each.ended) for each in good if each.first_byte is not None], _OURS)


def _name_processes(axes: Axes, epoch: Epoch, rows: dict[tuple[int, int], int]) -> None:
    places: dict[int, list[int]] = {}
    for (process, _), row in rows.items():
        places.setdefault(process, []).append(row)
    middles = [(min(each) + max(each)) / 2 for each in places.values()]
    names = [f"{epoch.processes[process]}\n{counted(len(each), 'connection')}" for process, each in places.items()]
    axes.set_yticks(middles, names)
    for each in list(places.values())[1:]:
        axes.axhline(min(each) - 0.5, color=_WAIT, linewidth=0.8)


def _figure(height: float) -> Figure:
    mpl.use("Agg")
    mpl.rcParams["font.family"] = "DejaVu Sans"  # comes with matplotlib
    mpl.rcParams["svg.hashsalt"] = "s3torch"  # the same picture is the same file
    return Figure(figsize=(_WIDTH, height), layout="constrained", facecolor=_PAPER)


def _bare(axes: Axes, *, bottom: bool = False) -> None:
    axes.tick_params(axis="y", length=0, labelsize=9, colors=_INK)
    axes.tick_params(axis="x", labelsize=8.5, colors=_INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
    if not bottom:
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    with named_in_errors(str(path)):
        figure.savefig(path, dpi=_DPI, metadata={"Date": None} if path.suffix == ".svg" else {"Software": None})
