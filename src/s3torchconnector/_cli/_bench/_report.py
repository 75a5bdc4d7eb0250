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
from s3torchconnector._cli._output import print_line, print_table, tell
from s3torchconnector._version import __version__

_BAR = 24  # characters
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
        print_table(
            "small objects", ">objects/s", ">Gbit/s", ">CPU ms each", ">first byte ms: p50", ">p90", ">p99", "",
            rows=[_small_row(each, bar) for each, bar in _with_bars(small, [e.objects_per_second for e in small])],
        )  # fmt: skip
        print_line("")
    large = [each for each in result.measured if each.work != "small"]
    if large:
        print_table(
            "large objects", ">Gbit/s", ">CPU s/GB", ">first byte ms: p50", ">p90", ">p99", "",
            rows=[_large_row(each, bar) for each, bar in _with_bars(large, [e.gbps for e in large])],
        )  # fmt: skip
        print_line("")
    print_recommendations(recommend(result.measured))
    longest = max((each.seconds for each in result.measured), default=0.0)
    if longest < _ROUGH:
        tell(f"No run took longer than {longest:.1f} s, so all figures are rough. Give more --seconds or --max-bytes.")


def print_recommendations(recommended: Sequence[Recommendation]) -> None:
    """Print what to set, and why."""
    rows = [[each.name, "default" if each.value is None else f"{each.value:,}", each.reason] for each in recommended]
    print_table("recommended", ">value", "reason", rows=rows)
    if code := as_code(recommended):
        print_line(f"\n{code}")


def _small_row(each: Measurement, bar: str) -> list[str]:
    name = describe_run(each).removeprefix("small objects, ")
    return [
        name,
        f"{each.objects_per_second:,.0f}",
        f"{each.gbps:.2f}",
        f"{each.cpu_seconds * 1e3:.2f}",
        *_first_byte(each),
        bar,
    ]


def _large_row(each: Measurement, bar: str) -> list[str]:
    return [describe_run(each), f"{each.gbps:.2f}", f"{each.cpu_seconds:.2f}", *_first_byte(each), bar]


def _first_byte(each: Measurement) -> list[str]:
    return [f"{seconds * 1e3:.1f}" for seconds in each.first_byte.values()] or ["-", "-", "-"]


def _with_bars(measured: Sequence[Measurement], rates: Sequence[float]) -> list[tuple[Measurement, str]]:
    return [(each, bar(rate / max(rates), blocks=_has_blocks())) for each, rate in zip(measured, rates, strict=True)]


def _has_blocks() -> bool:
    return sys.stdout.isatty() and "utf" in (sys.stdout.encoding or "").lower() and os.environ.get("TERM") != "dumb"


def bar(share: float, *, blocks: bool) -> str:
    """A bar whose length is a share of the longest.

    >>> from s3torchconnector._cli._bench._report import bar
    >>> bar(0.5, blocks=False), bar(0.26, blocks=True)
    ('############', '██████▏')
    """
    if not blocks:
        return "#" * round(share * _BAR)
    eighths = int(share * _BAR * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
