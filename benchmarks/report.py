"""The table on the terminal, and the machine that it was measured on. The documents' tables are in passages.py."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import litdata, peer
from benchmarks.cases import LIMIT, OURS, PEER
from benchmarks.passages import COLUMNS, method
from benchmarks.record import Results
from benchmarks.words import cells, costs, memory, percent, times


def machine(nginx: str | None, runs: int) -> dict[str, Any]:
    """What the numbers were measured on, and when; nothing that tells one machine from another of its kind."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="minutes"),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "cpu": _cpu_model(),
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "python": platform.python_version(),
        "torch": version("torch"),
        "ours": version("s3torchconnector"),
        "peer": peer.VERSION,
        "litdata": litdata.VERSION,
        "nginx": nginx,
        "runs": runs,
    }


def show(results: Results, console: Console) -> None:
    """The table on the terminal; red is a goal that is missed."""
    caption = method(results.machine)
    table = Table(*COLUMNS, "goals", show_lines=True, caption=caption, caption_justify="left")
    for row in results.rows:
        goals = "\n".join(
            f"[{'green' if each.met else 'red'}]{'met' if each.met else 'NOT MET'}[/] {each.goal} ({each.measured})"
            for each in row.goals
        )
        table.add_row(
            row.name,
            row.heading,
            *("\n".join(cells(row, who)) for who in (OURS, PEER, LIMIT)),
            times(row.ratios.get(PEER)),
            percent(row.ratios.get(LIMIT)),
            costs(row, OURS, PEER),
            memory(row, OURS, PEER),
            goals,
        )
    console.print(table)


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or "unknown"
