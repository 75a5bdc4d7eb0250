"""The picture: times the speed of the native connector, logarithmic, beside the limit and the goal."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.cases import LIMIT, OURS, PEER
from benchmarks.report import speed, times
from benchmarks.results import Row

_OURS, _LIMIT, _GOAL = "#2563a8", "#4b5563", "#c2410c"


def draw(rows: list[Row], size: int, path: Path) -> bool:
    """Write a PNG: one bar a row, from 1x to our ratio; a line is the limit, a triangle the goal.

    Returns whether there is a row to compare; without any, nothing is written.
    """
    rows = [row for row in rows if row.ratio(PEER) is not None]
    if not rows:
        return False
    mpl.use("Agg")
    figure = Figure(figsize=(12, 0.5 * len(rows) + 1.4), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        _bar(axes, place, row)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [fill(row.case.heading(size), 48) for row in rows])
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=1)
    ratios = [row.ratio(PEER) or 1 for row in rows] + [_limit(row) or 1 for row in rows]
    axes.set_xlim(min(0.8, 0.8 * min(ratios)), 12 * max(ratios))  # room for the numbers behind the bars
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    axes.set_xlabel("times the speed of s3torchconnector 1.5.0 (logarithmic)")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.plot([], [], "|", color=_LIMIT, markersize=16, markeredgewidth=2.5, label="limit")
    axes.plot([], [], "v", color=_GOAL, label="goal")
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    figure.savefig(path, dpi=150)
    return True


def _bar(axes: Axes, place: int, row: Row) -> None:
    ratio, limit = row.ratio(PEER) or 1.0, _limit(row)
    axes.barh(place, ratio - 1, left=1, height=0.55, color=_OURS)
    axes.annotate(
        f"{times(ratio)}  ({speed(row, OURS)})",
        (max(ratio, limit or 0, *_goals(row, limit), 1), place),
        xytext=(9, 0),
        textcoords="offset points",
        verticalalignment="center",
    )
    if limit:
        axes.plot(limit, place, "|", color=_LIMIT, markersize=21, markeredgewidth=2.5)
    for goal in _goals(row, limit):
        axes.plot(goal, place - 0.38, "v", color=_GOAL, markersize=6)


def _limit(row: Row) -> float | None:
    """The limit's speed in the axis' unit."""
    of_limit, ratio = row.ratio(LIMIT), row.ratio(PEER)
    return ratio / of_limit if ratio and of_limit else None


def _goals(row: Row, limit: float | None) -> list[float]:
    """The goals on speed in the axis' unit."""
    unit = {"versus_peer": 1.0, "versus_limit": limit or 0.0}
    return [goal.value * unit[goal.quantity] for goal in row.case.goals if unit.get(goal.quantity)]
