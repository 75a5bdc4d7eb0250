"""``make simulate``: whether many clients share an overloaded server fairly; a picture of how they do."""

from __future__ import annotations

import sys
from itertools import accumulate
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.fairness import GOODPUT, SHARE, WAIT, Outcome, Scenario, simulate

_PICTURE = Path(__file__).parents[1] / "build" / "fairness.png"
_SCENARIOS = (
    Scenario(40, 100.0),
    Scenario(40, 100.0, threads=8),
    Scenario(40, 100.0, threads=4, seconds=500.0, late=200.0),
    Scenario(1000, 100.0, seconds=1000.0),
    Scenario(1000, 100.0, threads=4, seconds=1000.0),
    Scenario(1000, 1000.0, threads=4),
    Scenario(4, 1000.0, threads=64, seconds=60.0, latency=0.1),
    Scenario(1, 100.0, threads=64, seconds=60.0),
    Scenario(1, 3000.0, threads=192, seconds=60.0, latency=0.03),
    Scenario(1, 3000.0, threads=192, seconds=60.0, latency=0.03, refused=0.01),
    Scenario(40, 1000.0, threads=8, seconds=120.0, refused=0.01),
)
_GOAL = "#c2410c"


def main() -> int:
    """Simulate all scenarios, print what came of them, and draw it; 1 if one misses a goal."""
    print(
        f"goals: goodput at least {GOODPUT:.0%} of what the server admits; the client that is served least at least "
        f"{SHARE:g} of the median; the longest wait at most {WAIT:g} times the mean"
    )
    results = []
    for scenario in _SCENARIOS:
        outcome = simulate(scenario)
        print(f"{'ok  ' if outcome.is_fair else 'MISS'} {scenario}\n     {outcome}", flush=True)
        results.append((scenario, outcome))
    _PICTURE.parent.mkdir(exist_ok=True)
    _draw(results, _PICTURE)
    print(_PICTURE)
    return 0 if all(outcome.is_fair for _, outcome in results) else 1


def _draw(results: list[tuple[Scenario, Outcome]], path: Path) -> None:
    """Write a PNG: what each client got, and how long requests waited; an orange line is the goal."""
    mpl.use("Agg")
    figure = Figure(figsize=(13, 6), layout="constrained")
    shares, waits = figure.subplots(1, 2)
    for scenario, outcome in results:
        if scenario.clients > 1:
            _line(shares, [each / outcome.served[len(outcome.served) // 2] for each in outcome.served], str(scenario))
        mean = sum(outcome.waits) / len(outcome.waits)
        _line(waits, [wait / mean for wait in outcome.waits], str(scenario))
    shares.axhline(SHARE, color=_GOAL)
    shares.set(xlabel="clients, least served first", ylabel="requests served, of the median", ylim=(0, 2))
    waits.axhline(WAIT, color=_GOAL)
    waits.set(xlabel="requests, shortest wait first", ylabel="wait, of the mean", ylim=(0, 1.2 * WAIT))
    for axes in (shares, waits):
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_formatter("{x:.0%}")
    figure.legend(*waits.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)


def _line(axes: Axes, values: list[float], label: str) -> None:
    places = list(accumulate([1.0 / len(values)] * len(values)))
    axes.plot(places, values, label=label, linewidth=1.2)


if __name__ == "__main__":
    sys.exit(main())
