"""What a run found, as it is stored in JSON. All that tables, plot and documents say comes from here.

A whole run is `benchmarks/results/latest.json`, which is committed.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


class RecordError(Exception):
    """A file does not hold the results of a run."""


@dataclass(frozen=True)
class Judged:
    """A goal and its measured value, both in words."""

    goal: str
    measured: str
    met: bool


@dataclass(frozen=True)
class Contender:
    """One side's medians over its runs, in the row's unit; `spread` is its slowest and fastest run.

    `samples` are the runs themselves. They are kept so that a reader can check the medians.
    """

    speed: float
    spread: tuple[float, float] | None = None
    cpu_seconds_per_unit: float | None = None
    growth_mib: float | None = None
    transfer: float | None = None
    samples: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Record:
    """One row. `ratios` are our speed divided by the speed of each other contender."""

    name: str
    work: str
    server: str
    unit: str
    goals: tuple[Judged, ...]
    ratios: dict[str, float]
    contenders: dict[str, Contender]

    @property
    def heading(self) -> str:
        return f"{self.work}, {self.server}"


@dataclass(frozen=True)
class Results:
    """All rows of a run, and the machine that it ran on."""

    machine: dict[str, Any]
    rows: tuple[Record, ...]

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_flat(json.dumps(asdict(self), indent=1, ensure_ascii=False)) + "\n", encoding="utf-8")


def read(path: Path) -> Results:
    """The results in `path`.

    Raises:
        RecordError: there is no such file, or it holds something else.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Results(data["machine"], tuple(_record(row) for row in data["rows"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{path}: not the results of a run ({error!r}); `make bench` writes them") from error


def _record(row: dict[str, Any]) -> Record:
    goals = tuple(Judged(**goal) for goal in row["goals"])
    return Record(**{**row, "goals": goals, "contenders": {k: _contender(v) for k, v in row["contenders"].items()}})


def _contender(values: dict[str, Any]) -> Contender:
    spread = values.get("spread")
    return Contender(**{**values, "spread": tuple(spread) if spread else None, "samples": tuple(values["samples"])})


def _flat(text: str) -> str:
    """Innermost lists and objects on one line each: a sample is a line, so that changes can be reviewed."""
    return re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda match: re.sub(r"\s*\n\s*", " ", match[0]), text)
