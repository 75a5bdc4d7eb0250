"""What is sampled, and whether it stayed flat: pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

FEWEST = 8  # samples: two a quarter


@dataclass(frozen=True)
class Line:
    """A quantity over time, and what it must not do.

    Args:
        name: as it is in the samples.
        unit: of its values.
        worse: 1 if it must not grow, -1 if it must not decline.
        share: of its early value by which it may.
        slack: units by which it may beside that.
    """

    name: str
    unit: str
    worse: int
    share: float
    slack: float

    def medians(self, values: Sequence[float]) -> tuple[float, float]:
        """Of the second and the last quarter.

        Raises:
            ValueError: there are too few values to tell.
        """
        if len(values) < FEWEST:
            raise ValueError(f"{len(values)} samples of {self.name} are too few to tell; {FEWEST} are needed")
        quarter = len(values) // 4
        return statistics.median(values[quarter : 2 * quarter]), statistics.median(values[-quarter:])

    def is_flat(self, values: Sequence[float]) -> bool:
        """Whether the last quarter is not worse than the second, within the tolerance."""
        early, late = self.medians(values)
        return self.worse * (late - early) <= abs(early) * self.share + self.slack


LINES = (
    Line("memory", "MiB", 1, share=0.10, slack=16.0),
    Line("threads", "threads", 1, share=0.10, slack=4.0),
    Line("descriptors", "files and sockets", 1, share=0.10, slack=8.0),
    Line("speed", "MiB/s", -1, share=0.50, slack=0.0),
)
