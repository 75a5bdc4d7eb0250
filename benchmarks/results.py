"""From samples to a row of the table: medians, ranges, ratios of interleaved pairs, goals met or not."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.cases import LIMIT, OURS, PEER, Case
from benchmarks.runner import Sample

Samples = dict[str, list[Sample]]


@dataclass(frozen=True)
class Row:
    """One case, measured. A ratio above 1 says that ours is faster."""

    case: Case
    samples: Samples

    def speed(self, who: str) -> float | None:
        """Median amount per second."""
        return self._median(who, "speed")

    def spread(self, who: str) -> tuple[float, float] | None:
        """Slowest and fastest run, in amount per second."""
        speeds = [sample.speed for sample in self.samples.get(who, [])]
        return (min(speeds), max(speeds)) if speeds else None

    def growth(self, who: str) -> float | None:
        """Median growth of resident memory in MiB."""
        return self._median(who, "growth_mib")

    def cpu(self, who: str) -> float | None:
        """Median processor seconds for one unit: an object, a key, a start, a GiB."""
        costs = [sample.cpu_seconds / sample.amount for sample in self.samples.get(who, [])]
        return median(costs) * (2**30 if self.case.unit == "bytes" else 1) if costs else None

    def transfer(self, who: str) -> float | None:
        """Median of the bytes that the server sent for each byte that was wanted."""
        ratios = [sample.transferred / sample.amount for sample in self.samples.get(who, [])]
        return median(ratios) if any(ratios) else None

    def ratio(self, who: str) -> float | None:
        """Median over the rounds of our speed divided by that of `who` in the same round."""
        pairs = zip(self.samples.get(OURS, []), self.samples.get(who, []), strict=False)
        ratios = [ours.speed / theirs.speed for ours, theirs in pairs]
        return median(ratios) if ratios else None

    def goals(self) -> list[tuple[str, bool]]:
        """Each goal in words, and whether it is met; without ours, none is judged."""
        cost = self.cpu(OURS)
        measured = {
            "versus_peer": self.ratio(PEER),
            "versus_limit": self.ratio(LIMIT),
            "cpu_ms": None if cost is None else cost * 1e3,
            "cpu_us": None if cost is None else cost * 1e6,
            "growth_mib": self.growth(OURS),
            "transfer": self.transfer(OURS),
        }
        judged = [(goal, measured[goal.quantity]) for goal in self.case.goals]
        return [(goal.judged(value), goal.met(value)) for goal, value in judged if value is not None]

    def as_dict(self) -> dict[str, Any]:
        """For latest.json: every sample and everything derived."""
        return {
            "name": self.case.name,
            "title": self.case.title,
            "unit": self.case.unit,
            "goals": [{"goal": text, "met": met} for text, met in self.goals()],
            "ratios": {who: self.ratio(who) for who in self.samples if who != OURS},
            "contenders": {who: self._contender(who) for who in self.samples},
        }

    def _contender(self, who: str) -> dict[str, Any]:
        return {
            "speed": self.speed(who),
            "spread": self.spread(who),
            "cpu_seconds_per_unit": self.cpu(who),
            "growth_mib": self.growth(who),
            "transfer": self.transfer(who),
            "samples": [vars(sample) for sample in self.samples[who]],
        }

    def _median(self, who: str, attribute: str) -> float | None:
        values = [getattr(sample, attribute) for sample in self.samples.get(who, [])]
        return median(values) if values else None
