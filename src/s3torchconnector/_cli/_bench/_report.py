"""What a benchmark prints: JSON, or a table with bars and the recommendations."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from typing import Any

from s3torchconnector._cli._bench._measurement import Measurement
from s3torchconnector._cli._bench._recommend import Recommendation, as_code, recommend
from s3torchconnector._cli._bench._sweep import Result, describe_run, processors
from s3torchconnector._cli._output import print_line, print_table, stdout_console, tell
from s3torchconnector._version import __version__

_BAR = 24  # characters
_SHORTEST_BAR = 8
_ROUGH = 1.0  # seconds: what takes less is measured too inexactly to decide by
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def document(result: Result) -> dict[str, Any]:
    """For JSON."""
    cost, objects = result.cost, result.objects
    return {
        "uri": str(result.place),
        "version": __version__,
        "machine": {"system": platform.platform(), "processors": processors(), "python": platform.python_version()},
        "small_objects": {"count": len(objects.small), "mean_size": objects.mean_size},
        "large_object": None if objects.large is None else {"key": objects.large.key, "size": objects.large.size},
        "estimated_cost_dollars": {"requests": cost.requests, "transfer_out_of_aws": cost.transfer},
        "measurements": [each.document() for each in result.measured],
        "recommendations": [each._asdict() for each in recommend(result.measured)],
        "requests": dict(result.requests),
    }


def print_report(result: Result) -> None:
    """Print it for people. Bars are of blocks on a terminal that has them, and otherwise of ASCII."""
    small = [each for each in result.measured if each.work == "small"]
    if small:
        columns = ["small objects", ">objects/s", ">Gbit/s", ">CPU ms", ">p50 ms", ">p90 ms", ">p99 ms"]
        _print_with_bars(columns, [_small_row(each) for each in small], [each.objects_per_second for each in small])
    large = [each for each in result.measured if each.work != "small"]
    if large:
        columns = ["large objects", ">Gbit/s", ">CPU s/GB", ">p50 ms", ">p90 ms", ">p99 ms"]
        _print_with_bars(columns, [_large_row(each) for each in large], [each.gbps for each in large])
    print_line(
        "CPU: of each object, or GB. p50, p90, p99: time to the first byte. ahead: look_ahead, on: max_connections.\n"
    )
    print_recommendations(recommend(result.measured))
    longest = max((each.seconds for each in result.measured), default=0.0)
    if longest < _ROUGH:
        tell(f"No run took longer than {longest:.1f} s, so all figures are rough. Give more --seconds or --max-bytes.")


def print_recommendations(recommended: Sequence[Recommendation]) -> None:
    """Print what to set, and why; at last what a program says."""
    for each in recommended:
        print_line(f"{each.name}: {'the default' if each.value is None else f'{each.value:,}'}\n    {each.reason}")
    if code := as_code(recommended):
        print_line(f"\n{code}")


def _print_with_bars(columns: list[str], rows: list[list[str]], rates: Sequence[float]) -> None:
    """Print a table. The last column is a bar for each rate, as long as the terminal has room for it."""
    widths = [max(map(len, column)) for column in zip([name.lstrip(">") for name in columns], *rows, strict=True)]
    room = stdout_console().width - sum(widths) - 2 * len(widths)
    length = min(_BAR, room) if room >= _SHORTEST_BAR else 0
    for row, rate in zip(rows, rates, strict=True):
        row.append(bar(rate / max(rates), length, blocks=_has_blocks()))
    print_table(*columns, "", rows=rows)
    print_line("")


def _small_row(each: Measurement) -> list[str]:
    name = describe_run(each).removeprefix("small objects, ")
    cpu = f"{each.cpu_seconds * 1e3:.2f}"
    return [name, f"{each.objects_per_second:,.0f}", f"{each.gbps:.2f}", cpu, *_first_byte(each)]


def _large_row(each: Measurement) -> list[str]:
    return [describe_run(each), f"{each.gbps:.2f}", f"{each.cpu_seconds:.2f}", *_first_byte(each)]


def _first_byte(each: Measurement) -> list[str]:
    return [f"{seconds * 1e3:.1f}" for seconds in each.first_byte.values()] or ["-", "-", "-"]


def _has_blocks() -> bool:
    return sys.stdout.isatty() and "utf" in (sys.stdout.encoding or "").lower() and os.environ.get("TERM") != "dumb"


def bar(share: float, longest: int, *, blocks: bool) -> str:
    """A bar whose length is a share of the longest, in characters.

    >>> from s3torchconnector._cli._bench._report import bar
    >>> bar(0.5, 24, blocks=False), bar(0.26, 24, blocks=True)
    ('############', '██████▏')
    """
    if not blocks:
        return "#" * round(share * longest)
    eighths = int(share * longest * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
