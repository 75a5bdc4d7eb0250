"""The passages of the documents that hold measured figures, as Markdown. figures.py puts them where they belong.

A passage has no links and no headings: the same text may be used in several folders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.cases import LIMIT, LITDATA, OURS, PEER
from benchmarks.record import Record, Results
from benchmarks.words import cells, costs, memory, percent, speed, times

COLUMNS = ("row", "work", "this version", "1.5.0", "limit", "times 1.5.0", "of limit", "CPU", "memory")
HEADLINES = ("iterable", "torch-load", "torch-save", "dcp-load", "dcp-save")  # one for each thing that programs do


class PassageError(Exception):
    """A marker asks for what there is not; the text says what there is."""


def passage(name: str, results: Results) -> str:
    """The passage that a marker names: `summary`, `table`, `goals`, `litdata`, or `rows` and the names of rows.

    Raises:
        PassageError: there is no such passage, or no such row.
    """
    kind, *rows = name.split()
    if kind == "rows" and rows:
        return some(results, rows)
    if kind not in _PASSAGES or rows:
        raise PassageError(f"no passage {name!r}; there are: {', '.join(_PASSAGES)}, and `rows` with names of rows")
    return _PASSAGES[kind](results)


def summary(results: Results) -> str:
    """Five rows, and what they were measured against."""
    rows = [row for row in results.rows if row.name in HEADLINES]
    return "\n".join(
        [
            *_short(rows, [row.work for row in rows]),
            "",
            f"Medians of {results.machine['runs']} runs beside version {results.machine['peer']}, "
            f"{_date(results.machine)}, on {results.machine['cores']} cores, against local servers with S3's delays.",
        ]
    )


def some(results: Results, names: Sequence[str]) -> str:
    """The rows of these names, short.

    Raises:
        PassageError: a row was not measured.
    """
    rows = _chosen(results, names)
    return "\n".join(_short(rows, [row.heading for row in rows]))


def table(results: Results) -> str:
    """All rows with everything that was measured, and the machine below it."""
    lines = _head(*COLUMNS)
    for row in results.rows:
        sides = ("<br>".join(cells(row, who)) or "-" for who in (OURS, PEER, LIMIT))
        lines.append(
            _line(
                f"`{row.name}`",
                row.heading,
                *sides,
                times(row.ratios.get(PEER)),
                percent(row.ratios.get(LIMIT)),
                costs(row, OURS, PEER),
                memory(row, OURS, PEER),
            )
        )
    return "\n".join([*lines, "", method(results.machine), "", f"Machine: {_place(results.machine)}."])


def goals(results: Results) -> str:
    """Each goal beside what was measured; those that are not met first, in a sentence."""
    judged = [(row, goal) for row in results.rows for goal in row.goals]
    missed = [f"`{row.name}` ({goal.goal}: {goal.measured})" for row, goal in judged if not goal.met]
    verdict = f"Not met, {len(missed)} of {len(judged)}: {', '.join(missed)}." if missed else "All goals are met."
    lines = _head("row", "work", "goal", "measured", "")
    for row, goal in judged:
        state = "met" if goal.met else "**not met**"
        lines.append(_line(f"`{row.name}`", row.heading, goal.goal, goal.measured, state))
    return "\n".join([verdict, "", *lines, "", f"Measured on {_place(results.machine)}."])


def beside_litdata(results: Results) -> str:
    """The rows that litdata has, and what it costs; a sentence if the run had to do without it."""
    rows = [row for row in results.rows if LITDATA in row.contenders]
    if not rows:
        return "The last whole run was made without litdata."
    lines = _head("", "this version", f"litdata {results.machine['litdata']}", "times litdata", "CPU")
    for row in rows:
        sides = ("<br>".join(cells(row, who)) for who in (OURS, LITDATA))
        lines.append(_line(row.heading, *sides, times(row.ratios.get(LITDATA)), costs(row, OURS, LITDATA)))
    about = f"Medians of {results.machine['runs']} runs, {_date(results.machine)}, on {results.machine['cores']} cores"
    return "\n".join([*lines, "", f"{about}. CPU: this version / litdata."])


def method(machine: dict[str, Any]) -> str:
    """How the numbers of the wide table came about."""
    litdata = ' "litdata" is the StreamingRawDataset of that package.' if "litdata" in machine else ""
    return (
        f"Speeds are medians of {machine['runs']} interleaved runs, with the slowest and the fastest if they were "
        "recorded. Ratios are medians of the ratios of each round. CPU and memory: this version / 1.5.0. "
        f'"Ranged" is the range-based reader of 1.5.0.{litdata}'
    )


_PASSAGES: dict[str, Callable[[Results], str]] = {
    "summary": summary,
    "table": table,
    "goals": goals,
    "litdata": beside_litdata,
}


def _chosen(results: Results, names: Sequence[str]) -> list[Record]:
    rows = {row.name: row for row in results.rows}
    unknown = [name for name in names if name not in rows]
    if unknown:
        raise PassageError(f"no row {', '.join(unknown)} in the results; there are: {', '.join(rows)}")
    return [rows[name] for name in names]


def _short(rows: Sequence[Record], titles: Sequence[str]) -> list[str]:
    lines = _head("", "this version", "1.5.0", "times 1.5.0")
    for row, title in zip(rows, titles, strict=True):
        lines.append(_line(title, speed(row, OURS), speed(row, PEER), times(row.ratios.get(PEER))))
    return lines


def _head(*titles: str) -> list[str]:
    return [_line(*titles), "|---" * len(titles) + "|"]


def _line(*texts: str) -> str:
    return "| " + " | ".join(texts) + " |"


def _date(machine: dict[str, Any]) -> str:
    return str(machine["date"])[:10]


def _place(machine: dict[str, Any]) -> str:
    size = f"{machine['memory_gib']} GiB of memory, " if machine.get("memory_gib") else ""
    return (
        f"{machine['cores']} cores ({machine['cpu']}), {size}{machine['system']}, Python {machine['python']}, "
        f"PyTorch {machine['torch']}, {_date(machine)}"
    )
