"""Measured quantities in words, the same in every table."""

from __future__ import annotations

from benchmarks.cases import LITDATA, PEER, RANGED
from benchmarks.record import Contender, Record

NOTHING = "-"
_SPEEDS = {"objects": (1, "{:,.0f}", "objects/s"), "keys": (1, "{:,.0f}", "keys/s"), "bytes": (1e9, "{:.2f}", "GB/s")}
_COSTS = {
    "objects": (1e3, "{:.2f}", "ms each"),
    "keys": (1e6, "{:.1f}", "us a key"),
    "bytes": (1, "{:.2f}", "s/GiB"),
    "starts": (1e3, "{:.0f}", "ms"),
}


def times(ratio: float | None) -> str:
    """A ratio as people say it."""
    if ratio is None:
        return NOTHING
    return f"{ratio:.0f}x" if ratio >= 10 else f"{ratio:.1f}x" if ratio >= 2 else f"{ratio:.2f}x"


def percent(ratio: float | None) -> str:
    return NOTHING if ratio is None else f"{ratio:.0%}"


def speed(row: Record, who: str) -> str:
    """The median, in the row's unit."""
    contender = row.contenders.get(who)
    if contender is None:
        return NOTHING
    if row.unit == "starts":
        return f"{1e3 / contender.speed:.0f} ms"
    scale, number, unit = _SPEEDS[row.unit]
    return f"{number.format(contender.speed / scale)} {unit}"


def spread(row: Record, who: str) -> str:
    """The slowest and the fastest run, without the unit; empty if that was not recorded."""
    contender = row.contenders.get(who)
    if contender is None or contender.spread is None:
        return ""
    slowest, fastest = contender.spread
    if row.unit == "starts":
        return f"{1e3 / fastest:.0f}-{1e3 / slowest:.0f}"
    scale, number, _ = _SPEEDS[row.unit]
    return "-".join(number.format(bound / scale) for bound in (slowest, fastest))


def cells(row: Record, who: str) -> list[str]:
    """Lines of a cell: speed, spread, and for the peer the speeds of its range-based reader and of litdata."""
    others = ((RANGED, "ranged"), (LITDATA, "litdata")) if who == PEER else ()
    beside = [f"({name} {speed(row, other)})" for other, name in others if other in row.contenders]
    return [line for line in (speed(row, who), spread(row, who), *beside) if line]


def costs(row: Record, *who: str) -> str:
    """Processor time of each, for one unit."""
    scale, number, unit = _COSTS[row.unit]
    values = [_of(row, each).cpu_seconds_per_unit for each in who]
    return " / ".join(NOTHING if cost is None else number.format(cost * scale) for cost in values) + f" {unit}"


def memory(row: Record, *who: str) -> str:
    """Growth of resident memory of each."""
    values = [_of(row, each).growth_mib for each in who]
    return " / ".join(NOTHING if growth is None else f"{growth:,.0f}" for growth in values) + " MiB"


def _of(row: Record, who: str) -> Contender:
    return row.contenders.get(who, Contender(0))
