"""From samples to a row of the table: medians, ranges, ratios of interleaved pairs, goals met or not."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from benchmarks.cases import LIMIT, LITDATA, OURS, PEER, SERVERS, Case
from benchmarks.record import Contender, Judged, Record
from benchmarks.runner import Sample

Samples = dict[str, list[Sample]]


@dataclass(frozen=True)
class Row:
    """One case, measured. A ratio above 1 says that ours is faster."""

    case: Case
    samples: Samples

    def growth(self, who: str) -> float | None:
        """Median growth of resident memory in MiB."""
        values = [sample.growth_mib for sample in self.samples.get(who, [])]
        return median(values) if values else None

    def cpu(self, who: str) -> float | None:
        """Median processor seconds for one unit: an object, a key, a start, a GiB."""
        costs = [sample.cpu_seconds / sample.amount for sample in self.samples.get(who, [])]
        return median(costs) * (2**30 if self.case.unit == "bytes" else 1) if costs else None

    def transfer(self, who: str) -> float | None:
        """Median of the bytes that the server sent for each byte that was wanted."""
        ratios = [sample.transferred / sample.amount for sample in self.samples.get(who, [])]
        return median(ratios) if any(ratios) else None

    def ratio(self, who: str) -> float | None:
        """Median over the rounds of our speed divided by the speed of `who` in the same round."""
        pairs = zip(self.samples.get(OURS, []), self.samples.get(who, []), strict=False)
        ratios = [ours.speed / theirs.speed for ours, theirs in pairs]
        return median(ratios) if ratios else None

    def goals(self) -> list[Judged]:
        """Each goal, and whether it is met; without ours, none is judged."""
        cost = self.cpu(OURS)
        measured = {
            "versus_peer": self.ratio(PEER),
            "versus_litdata": self.ratio(LITDATA),
            "versus_limit": self.ratio(LIMIT),
            "cpu_ms": None if cost is None else cost * 1e3,
            "cpu_us": None if cost is None else cost * 1e6,
            "growth_mib": self.growth(OURS),
            "transfer": self.transfer(OURS),
        }
        judged = [(goal, measured[goal.quantity]) for goal in self.case.goals]
        return [Judged(str(goal), goal.words(value), goal.met(value)) for goal, value in judged if value is not None]

    def record(self, size: int) -> Record:
        """Every sample and everything derived, for a checkpoint of `size` bytes."""
        return Record(
            name=self.case.name,
            work=self.case.work_of(size),
            server=SERVERS[self.case.server],
            unit=self.case.unit,
            goals=tuple(self.goals()),
            ratios={who: ratio for who in self.samples if who != OURS and (ratio := self.ratio(who)) is not None},
            contenders={who: self._contender(who) for who in self.samples},
        )

    def _contender(self, who: str) -> Contender:
        samples = self.samples[who]
        speeds = [sample.speed for sample in samples]
        return Contender(
            speed=median(speeds),
            spread=(min(speeds), max(speeds)),
            cpu_seconds_per_unit=self.cpu(who),
            growth_mib=self.growth(who),
            transfer=self.transfer(who),
            samples=tuple(vars(sample) for sample in samples),
        )
