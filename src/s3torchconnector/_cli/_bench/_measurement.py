"""What one run measured: a pure function of what its processes report."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._wire import TracedRequest

_DEFAULTS = S3ClientConfig()
RANKS = (50, 90, 99)  # the percentiles that are shown


class Settings(NamedTuple):
    """What a run tries. All but workers and look-ahead are fields of ``S3ClientConfig``.

    Attributes:
        workers: processes that read; 0 is the process itself.
        look_ahead: objects fetched early by each; None lets the dataset decide.
    """

    workers: int = 0
    look_ahead: int | None = None
    max_connections: int = _DEFAULTS.max_connections
    part_size: int = _DEFAULTS.part_size
    throughput_target_gbps: float = _DEFAULTS.throughput_target_gbps

    def of_client(self) -> dict[str, Any]:
        """The fields of ``S3ClientConfig``."""
        settings = self._asdict()
        del settings["workers"], settings["look_ahead"]
        return settings


class Requests:
    """What is kept of the requests of a run.

    Attributes:
        counts: how many there were, by operation.
        retries: how many of them followed a failure.
        first_bytes: seconds until the response to each ``GetObject`` began.
        trace: all of them, if they are kept.
    """

    def __init__(self, keep: bool = False) -> None:
        self.counts: Counter[str] = Counter()
        self.retries = 0
        self.first_bytes = array("d")
        self.trace: list[TracedRequest] = []
        self._keep = keep

    def take(self, records: list[TracedRequest]) -> None:
        """Take these out of a list that goes on growing."""
        taken = records[:]
        del records[: len(taken)]
        self.counts.update(each.operation for each in taken)
        self.retries += sum(each.attempt > 1 for each in taken)
        reads = (each for each in taken if each.operation == "GetObject")
        self.first_bytes.extend(each.first_byte - each.sent for each in reads if each.first_byte is not None)
        if self._keep:
            self.trace += taken


@dataclass
class Report:
    """What one process did in a run. Times are by ``time.perf_counter``, which processes of a machine share.

    Attributes:
        began: when it asked for the first object.
        times, sizes: when each object, or piece of one, had arrived or was stored; and its bytes.
        cpu_seconds: of the process, from the first of the times to the last.
        requests: what it sent.
    """

    began: float
    times: array[float] = field(default_factory=lambda: array("d"))
    sizes: array[int] = field(default_factory=lambda: array("q"))
    cpu_seconds: float = 0.0
    requests: Requests = field(default_factory=Requests)

    def add(self, time: float, size: int) -> None:
        """One more object, or piece."""
        self.times.append(time)
        self.sizes.append(size)


@dataclass(frozen=True)
class Measurement:
    """One run, as it is shown.

    Attributes:
        work: ``"small"``, ``"large"`` or ``"save"``.
        objects, bytes, seconds: what was read or stored in which time, while all processes were at it.
        cpu_seconds: for each object; for large ones, for each GB.
        first_byte: seconds until responses began, as ``p50``, ``p90`` and ``p99``; empty if nothing was read.
        requests, retries: all that the run sent, also before and after these seconds.
    """

    work: str
    settings: Settings
    objects: int
    bytes: int
    seconds: float
    cpu_seconds: float
    first_byte: Mapping[str, float] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    retries: int = 0

    @property
    def gbps(self) -> float:
        """Throughput in Gbit/s: bits, and decimal, as networks are sold."""
        return self.bytes * 8 / 1e9 / self.seconds

    @property
    def objects_per_second(self) -> float:
        """Objects, or pieces of large ones, in a second."""
        return self.objects / self.seconds

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "work": self.work,
            **self.settings._asdict(),
            "objects": self.objects,
            "bytes": self.bytes,
            "seconds": self.seconds,
            "objects_per_second": self.objects_per_second,
            "gbps": self.gbps,
            "cpu_seconds_per_object" if self.work == "small" else "cpu_seconds_per_gb": self.cpu_seconds,
            "first_byte_seconds": dict(self.first_byte),
            "requests": dict(self.requests),
            "retries": self.retries,
        }


def summarize(work: str, settings: Settings, reports: Sequence[Report]) -> Measurement:
    """The measurement of a run.

    Processes start and end at different times. Only objects are counted that arrived while all processes were reading,
    after the first object of each, which had to wait for connections. If these are too few, everything is counted.
    """
    active = [each for each in reports if each.times]
    begin = max((each.times[0] for each in active), default=0.0)
    end = min((each.times[-1] for each in active), default=0.0)
    counted = [
        size for each in active for time, size in zip(each.times, each.sizes, strict=True) if begin < time <= end
    ]
    everything = [size for each in active for size in each.sizes]
    if 2 * len(counted) < len(everything):
        counted = everything
        begin = min((each.began for each in active), default=0.0)
        end = max((each.times[-1] for each in active), default=0.0)
    amount = len(everything) - len(active) if work == "small" else sum(everything) / 1e9
    requests: Counter[str] = Counter()
    for each in reports:
        requests.update(each.requests.counts)
    return Measurement(
        work=work,
        settings=settings,
        objects=len(counted),
        bytes=sum(counted),
        seconds=max(end - begin, 1e-9),
        cpu_seconds=sum(each.cpu_seconds for each in active) / max(amount, 1e-9) if amount else 0.0,
        first_byte=percentiles([time for each in reports for time in each.requests.first_bytes]),
        requests=requests,
        retries=sum(each.requests.retries for each in reports),
    )


def percentiles(times: Iterable[float]) -> dict[str, float]:
    """The times that so many per cent of all do not exceed; nothing of nothing."""
    ordered = sorted(times)
    return {f"p{rank}": ordered[math.ceil(rank * len(ordered) / 100) - 1] for rank in RANKS} if ordered else {}
