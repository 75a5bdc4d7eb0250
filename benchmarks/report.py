"""The table, three times: on the terminal, as JSON with every sample, as Markdown for the README."""

from __future__ import annotations

import json
import os
import platform
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import peer
from benchmarks.cases import LIMIT, OURS, PEER, RANGED
from benchmarks.results import Row

_COLUMNS = (
    "work",
    "ours",
    "1.5.0 (ranged)",
    "limit",
    "vs 1.5.0",
    "of limit",
    "CPU ours / 1.5.0",
    "memory ours / 1.5.0",
    "goals",
)
_SPEEDS = {"objects": (1, "{:,.0f} objects/s"), "keys": (1, "{:,.0f} keys/s"), "bytes": (1e9, "{:.2f} GB/s")}
_COSTS = {
    "objects": (1e3, "{:.2f}", "ms each"),
    "keys": (1e6, "{:.1f}", "us a key"),
    "bytes": (1, "{:.2f}", "s/GiB"),
    "starts": (1e3, "{:.0f}", "ms"),
}
NOTES = (
    "Medians of {runs} interleaved runs after one that does not count, each in a fresh process; ratios are "
    "medians of the ratios of each round. The limit is raw sockets on threads doing the same requests; for "
    "torch.load a local file in memory, for torch.save a file that discards. Memory is what the process grows by at "
    "its peak while it is measured. What each number means: docs/performance.md."
)


def machine(nginx: str | None, runs: int) -> dict[str, Any]:
    """What the numbers were measured on, and when."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="minutes"),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu": _cpu_model(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": version("torch"),
        "ours": version("s3torchconnector"),
        "peer": peer.VERSION,
        "nginx": nginx,
        "runs": runs,
    }


def show(rows: list[Row], size: int, runs: int, console: Console) -> None:
    """The table on the terminal; red is a goal that is missed."""
    table = Table(*_COLUMNS, show_lines=True, caption=NOTES.format(runs=runs), caption_justify="left")
    for row in rows:
        cells = _cells(row, size, spread=True)
        goals = "\n".join(
            f"[{'green' if met else 'red'}]{'met' if met else 'NOT MET'}[/] {text}" for text, met in row.goals()
        )
        table.add_row(*cells, goals)
    console.print(table)


def write(rows: list[Row], size: int, about: dict[str, Any], path: Path) -> None:
    """`path` with .json and .md behind it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {"machine": about, "checkpoint_bytes": size, "rows": [row.as_dict() for row in rows]}
    path.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(rows, size, about))


def markdown(rows: list[Row], size: int, about: dict[str, Any]) -> str:
    """The table for the README, with the machine below it."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|---" * len(_COLUMNS) + "|"]
    for row in rows:
        goals = "<br>".join(f"{text}: {'met' if met else '**not met**'}" for text, met in row.goals())
        lines.append("| " + " | ".join([*_cells(row, size, spread=False), goals]) + " |")
    place = "{cores} cores ({cpu}), {system}, Python {python}, PyTorch {torch}, {date}".format(**about)
    return "\n".join([*lines, "", f"{NOTES.format(runs=about['runs'])} Machine: {place}.", ""])


def speed(row: Row, who: str, spread: bool = False) -> str:
    """The median, and on request the range, in the unit of the row."""
    median, bounds = row.speed(who), row.spread(who)
    if median is None or bounds is None:
        return "-"
    if row.case.unit == "starts":
        return f"{1e3 / median:.0f} ms" + (f"\n{1e3 / bounds[1]:.0f}-{1e3 / bounds[0]:.0f}" if spread else "")
    scale, form = _SPEEDS[row.case.unit]
    number = form.split()[0]
    between = "-".join(number.format(bound / scale) for bound in bounds)
    return form.format(median / scale) + (f"\n{between}" if spread else "")


def _cells(row: Row, size: int, spread: bool) -> list[str]:
    peers = speed(row, PEER, spread)
    if RANGED in row.samples:
        peers += f"{chr(10) if spread else ' '}({speed(row, RANGED)})"
    limit = row.ratio(LIMIT)
    return [
        row.case.heading(size),
        speed(row, OURS, spread),
        peers,
        speed(row, LIMIT, spread),
        times(row.ratio(PEER)),
        "-" if limit is None else f"{limit:.0%}",
        f"{_cost(row, OURS)} / {_cost(row, PEER)} {_COSTS[row.case.unit][2]}",
        f"{_growth(row, OURS)} / {_growth(row, PEER)} MiB",
    ]


def times(ratio: float | None) -> str:
    """A ratio as people say it."""
    return (
        "-" if ratio is None else f"{ratio:.0f}x" if ratio >= 10 else f"{ratio:.1f}x" if ratio >= 2 else f"{ratio:.2f}x"
    )


def _cost(row: Row, who: str) -> str:
    cost = row.cpu(who)
    scale, form, _ = _COSTS[row.case.unit]
    return "-" if cost is None else form.format(cost * scale)


def _growth(row: Row, who: str) -> str:
    growth = row.growth(who)
    return "-" if growth is None else f"{growth:,.0f}"


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or "unknown"
