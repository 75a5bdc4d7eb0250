"""How long the benchmark runs and how much it transfers, shared out among its runs; and what that costs. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

import typer

from s3torchconnector._metrics import Prices

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_SHORTEST = 0.05  # seconds of a run, however little time is left
# Dollars, of S3 Standard in us-east-1 (https://aws.amazon.com/s3/pricing/), for a request and for a byte out of AWS.
_PER_READ = Prices().get / 1000
_PER_WRITE = Prices().put / 1000
_PER_BYTE_OUT = 0.09 / 1e9


class Share(NamedTuple):
    """At which of these one run ends."""

    seconds: float
    bytes: int
    requests: int

    def divided(self, processes: int) -> Share:
        """The share of each of so many processes, which run at the same time."""
        return Share(self.seconds, max(1, self.bytes // processes), max(1, self.requests // processes))


class Limits:
    """The rest for the coming runs: each gets an equal part of it.

    Args:
        share: of all runs.
        runs: how many there will be, at most.
    """

    def __init__(self, share: Share, runs: int) -> None:
        self._left = share
        self.runs = runs

    def next(self) -> Share:
        """The share of the next run."""
        runs = max(1, self.runs)
        seconds, size, requests = self._left
        return Share(max(_SHORTEST, seconds / runs), max(1, size // runs), max(1, requests // runs))

    def spend(self, seconds: float, size: int, requests: int) -> None:
        """A run is over, and took this."""
        left = self._left
        self.runs -= 1
        self._left = Share(
            max(0.0, left.seconds - seconds), max(0, left.bytes - size), max(0, left.requests - requests)
        )


class Cost(NamedTuple):
    """What the runs cost at most, in dollars.

    Attributes:
        reads, writes: requests, by what they are priced as; listings are priced as writes.
        requests: the price of these.
        transfer: the price of the bytes that are read, for a machine outside AWS.
    """

    reads: int
    writes: int
    requests: float
    transfer: float


def estimate(read: int, written: int, mean_size: float, part_size: int, most_requests: int, fixed_writes: int) -> Cost:
    """The cost of reading and writing so many bytes.

    Args:
        read, written: bytes.
        mean_size: of the small objects; 0 if none are read.
        part_size: of large objects.
        most_requests: that reads of small objects make.
        fixed_writes: requests that are written or listed besides.
    """
    smallest = min(mean_size or part_size, part_size)
    reads = min(most_requests, int(read / max(1.0, smallest)) + 1)
    writes = fixed_writes + int(written / part_size)
    return Cost(reads, writes, reads * _PER_READ + writes * _PER_WRITE, read * _PER_BYTE_OUT)


def parse_size(text: str) -> int:
    """A number of bytes: ``500MB`` is decimal, ``8MiB`` binary.

    >>> from s3torchconnector._cli._bench._limits import parse_size
    >>> parse_size("8MiB"), parse_size("1.5 GB"), parse_size("1000")
    (8388608, 1500000000, 1000)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?\s*", text.upper())
    size = int(float(found[1]) * _UNITS[found[2] or ""]) if found else 0
    if size <= 0:
        raise typer.BadParameter(f"{text!r} is no number of bytes, such as 500MB or 10GiB")
    return size
