"""The picture in the README: what this version and 1.5.0 do, row by row, beside the limit.

Each row has its own scale, from zero to the fastest of the three, so that a bar half as long is half as fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from benchmarks.cases import LIMIT, OURS, PEER
from benchmarks.record import Record, Results
from benchmarks.words import speed, times

# A row for each way that programs use the package, all against servers with S3's delays.
ROWS = ("iterable", "map", "readinto", "torch-load", "torch-save", "dcp-load", "dcp-save", "stream", "listing")
_OURS, _PEER, _LIMIT, _INK, _PAPER = "#1f6feb", "#9aa4b2", "#d1570a", "#1f2328", "#ffffff"
_WIDTH, _DPI = 8.4, 200  # GitHub shows a README's pictures about 840 pixels wide: a point is 1.4 of them
_RIGHT = 1.2  # where the ratios end, in lengths of the longest bar


def draw(results: Results, path: Path, names: Sequence[str] = (), source: str = "") -> bool:
    """Write a PNG of the rows `names`, or of all; `source` is kept in its metadata.

    The background is opaque: the picture is the same on GitHub's light and dark pages.

    Returns whether there is a row to compare; without any, nothing is written.
    """
    rows = [row for row in results.rows if PEER in row.ratios and (not names or row.name in names)]
    if not rows:
        return False
    mpl.use("Agg")
    mpl.rcParams["font.family"] = "DejaVu Sans"  # comes with matplotlib, so that the picture is the same everywhere
    margins = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
    figure = Figure(figsize=(_WIDTH, 0.62 * len(rows) + 0.95), layout=margins, facecolor=_PAPER)
    axes = figure.subplots()
    for place, row in enumerate(rows):
        _row(axes, place, row)
    axes.set_xlim(0, _RIGHT)
    axes.set_ylim(len(rows) - 0.42, -0.8)
    axes.text(_RIGHT, -0.62, f"times {results.machine['peer']}", fontsize=9.5, color=_OURS, horizontalalignment="right")
    titles = [row.work if names else row.heading for row in rows]
    axes.set_yticks(range(len(rows)), [fill(title, 30) for title in titles], color=_INK)
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0, labelsize=9.5)
    axes.spines[["top", "right", "bottom", "left"]].set_visible(False)
    axes.set_facecolor(_PAPER)
    figure.legend(handles=_legend(results, rows), loc="outside upper center", ncols=3, frameon=False, fontsize=9.5)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI, metadata={"Source": source, "Software": None})
    return True


def _row(axes: Axes, place: int, row: Record) -> None:
    """Two bars with their speeds, a mark for the limit, and at the right our ratio to the peer."""
    fastest = max(each.speed for who, each in row.contenders.items() if who in (OURS, PEER, LIMIT))
    for who, offset, color in ((OURS, -0.18, _OURS), (PEER, 0.18, _PEER)):
        length = row.contenders[who].speed / fastest
        axes.barh(place + offset, length, height=0.34, color=color)
        inside = length > 0.3
        axes.annotate(
            speed(row, who),
            (0 if inside else length, place + offset),
            xytext=(5, 0),
            textcoords="offset points",
            verticalalignment="center_baseline",
            fontsize=8.5,
            color=_PAPER if inside and who == OURS else _INK,
        )
    if LIMIT in row.contenders:
        length = row.contenders[LIMIT].speed / fastest
        axes.plot([length, length], [place - 0.4, place + 0.4], color=_LIMIT, linewidth=2.5)
    axes.text(
        _RIGHT,
        place,
        times(row.ratios[PEER]),
        fontsize=15,
        fontweight="bold",
        color=_OURS,
        horizontalalignment="right",
        verticalalignment="center_baseline",
    )


def _legend(results: Results, rows: Sequence[Record]) -> list[Patch | Line2D]:
    handles: list[Patch | Line2D] = [
        Patch(color=_OURS, label="this version"),
        Patch(color=_PEER, label=f"native connector {results.machine['peer']}"),
    ]
    if any(LIMIT in row.contenders for row in rows):
        handles.append(Line2D([], [], color=_LIMIT, linewidth=2.5, label="limit of the machine"))
    return handles
