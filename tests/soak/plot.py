"""The picture: one panel a line, with the medians that are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from tests.soak.lines import LINES


def draw(seconds: Sequence[float], samples: Mapping[str, Sequence[float]], title: str, path: Path) -> None:
    """Write a PNG."""
    mpl.use("Agg")
    figure = Figure(figsize=(10, 8), layout="constrained")
    figure.suptitle(title, fontsize=10)
    quarter = len(seconds) // 4
    parts = slice(quarter, 2 * quarter), slice(-quarter, None)
    for axes, line in zip(figure.subplots(len(LINES), sharex=True), LINES, strict=True):
        values = samples[line.name]
        axes.plot(seconds, values, color="#2563a8", linewidth=1)
        for median, part in zip(line.medians(values), parts, strict=True):
            axes.plot([seconds[part][0], seconds[part][-1]], [median] * 2, color="#c2410c", linewidth=2)
        axes.set_ylabel(f"{line.name}\n({line.unit})" if line.unit != line.name else line.name)
        axes.set_ylim(0, 1.15 * max(*values, 1))
        axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("seconds (orange: the medians of the second and of the last quarter)")
    figure.savefig(path, dpi=120)
