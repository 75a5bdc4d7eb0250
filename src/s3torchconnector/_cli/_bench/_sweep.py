"""The runs of the benchmark: which settings are tried on what, and for how long."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial

from s3torchconnector._cli._bench import _large
from s3torchconnector._cli._bench._limits import Cost, Limits, Share, estimate
from s3torchconnector._cli._bench._measurement import Measurement, Report, Requests, Settings, summarize
from s3torchconnector._cli._bench._reads import SmallReads
from s3torchconnector._cli._bench._scratch import (
    PAGES,
    SCRATCH_OBJECTS,
    SCRATCH_SIZE,
    Objects,
    describe,
    find,
    make_small,
    scratch,
)  # fmt: skip
from s3torchconnector._cli._connection import Connection
from s3torchconnector._cli._location import Location
from s3torchconnector._cli._output import readable, tell
from s3torchconnector._plural import counted
from s3torchconnector._s3client import S3Client
from s3torchconnector._wire import tracing

_MIB = 1024**2
_PART_SIZES = (8 * _MIB, 16 * _MIB, 32 * _MIB)
_IN_FLIGHT = ((16, 192), (64, 192), (384, 384))  # look-ahead and connections, besides the defaults
_HIGHER_TARGETS = (25.0, 100.0)  # Gbit/s, tried in order while they help
_HELPS = 1.05  # times as fast as before


@dataclass
class Result:
    """What a benchmark has found.

    Attributes:
        place: where.
        objects: what was read.
        cost: what was said before it began.
        measured: the runs.
        requests: all that were sent, by operation, listing and scratch objects included.
    """

    place: Location
    objects: Objects
    cost: Cost
    measured: list[Measurement] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)


class Sweep:
    """One benchmark.

    Args:
        connection: how S3 is reached.
        place: below which prefix.
        share: how long it may take, and what it may transfer.
        most_workers: the largest number of workers to try.
        write: whether objects may be stored.
    """

    def __init__(self, connection: Connection, place: Location, share: Share, most_workers: int, write: bool) -> None:
        self._connection = connection
        self._place = place
        self._share = share
        self._workers = worker_counts(most_workers)
        self._write = write

    def run(self) -> Result:
        """Carry it out.

        Raises:
            ValueError: there is nothing to read, and nothing may be stored.
            S3Exception: S3 refused, or could not be reached.
        """
        requests = Requests()
        with tracing() as records:
            try:
                with self._connection.opened() as client:
                    result = self._run_with(client)
            finally:
                requests.take(records)
        for each in (requests.counts, *(each.requests for each in result.measured)):
            result.requests.update(each)
        return result

    def _run_with(self, client: S3Client) -> Result:
        objects = find(client, self._place)
        if not (objects.small or objects.large or self._write):
            raise ValueError(
                f"nothing below {self._place} can be read: there is no object with a byte that is not archived. "
                "Name another prefix, or add --write, which stores scratch objects and deletes them again"
            )
        limits = Limits(self._share, self._most_runs(objects))
        result = Result(self._place, objects, self._cost(objects, limits))
        self._announce(result)
        with scratch(client, self._place) if self._write else nullcontext() as folder:
            if folder is not None and not objects.small:
                objects = objects._replace(small=make_small(client, folder))
            runs = _Runs(self._connection, self._place, limits, result)
            if objects.small:
                runs.small(objects, self._workers)
            if folder is not None:
                runs.saves(Location(folder.bucket, f"{folder.key}large"))
                objects = objects._replace(large=objects.large or describe(client, folder, "large")[0])
            if objects.large is not None:
                runs.large(objects)
            result.objects = objects
        return result

    def _most_runs(self, objects: Objects) -> int:
        small = len(self._workers) + len(_IN_FLIGHT) if objects.small or self._write else 0
        large = len(_PART_SIZES) + len(_HIGHER_TARGETS) if objects.large or self._write else 0
        return small + large + (len(_PART_SIZES) if self._write else 0)

    def _cost(self, objects: Objects, limits: Limits) -> Cost:
        each = limits.next()
        written = each.bytes * len(_PART_SIZES) + SCRATCH_OBJECTS * SCRATCH_SIZE if self._write else 0
        fixed = PAGES + (SCRATCH_OBJECTS + 20 if self._write else 0)
        size = objects.mean_size or (SCRATCH_SIZE if self._write else 0.0)
        read = each.bytes * (limits.runs - (len(_PART_SIZES) if self._write else 0))
        return estimate(read, written, size, _PART_SIZES[0], self._share.requests, fixed)

    def _announce(self, result: Result) -> None:
        cost, objects = result.cost, result.objects
        tell(
            f"Found {len(objects.small):,} small objects ({readable(objects.mean_size)} on average) and "
            f"{'no' if objects.large is None else 'a'} large one among the first {objects.listed:,} "
            f"below {self._place}."
        )
        tell(
            f"Takes about {self._share.seconds:g} s and transfers about {readable(self._share.bytes)} at most: up to "
            f"{cost.reads:,} reads and {cost.writes:,} writes and listings, ${cost.requests:.2f} at the prices of S3 "
            f"Standard in us-east-1. Reading from outside AWS costs up to ${cost.transfer:.2f} more."
        )


class _Runs:
    def __init__(self, connection: Connection, place: Location, limits: Limits, result: Result) -> None:
        self._connection = connection
        self._place = place
        self._limits = limits
        self._result = result

    def small(self, objects: Objects, workers: list[int]) -> None:
        """Numbers of workers, as long as more help; then what is in flight, with the best of them."""
        reads = SmallReads(self._connection, self._place.bucket, objects.small)

        def run(settings: Settings) -> Measurement:
            return self._run("small", settings, lambda share: reads.run(settings, share))

        best: Measurement | None = None
        useless = 0
        for number in workers:
            each = run(Settings(workers=number))
            useless = useless + 1 if best and each.objects_per_second < _HELPS * best.objects_per_second else 0
            if best is None or each.objects_per_second > best.objects_per_second:
                best = each
            if useless == 2:
                self._limits.runs -= len(workers) - workers.index(number) - 1
                break
        assert best is not None
        for look_ahead, connections in _IN_FLIGHT:
            run(best.settings._replace(look_ahead=look_ahead, max_connections=connections))

    def saves(self, place: Location) -> None:
        """Part sizes of saves."""
        for size in _PART_SIZES:
            settings = Settings(part_size=size)
            self._run("save", settings, partial(self._save, place, settings))

    def _save(self, place: Location, settings: Settings, share: Share) -> list[Report]:
        return [_large.save(self._connection, place, settings, share)]

    def large(self, objects: Objects) -> None:
        """Part sizes of reads; then higher targets, if the default's is nearly reached."""
        info = objects.large
        assert info is not None

        def run(settings: Settings) -> Measurement:
            return self._run(
                "large", settings, lambda share: [_large.read(self._connection, self._place, info, settings, share)]
            )

        best = max([run(Settings(part_size=size)) for size in _PART_SIZES], key=lambda each: each.gbps)
        for target in _HIGHER_TARGETS:
            if best.gbps < 0.7 * best.settings.throughput_target_gbps:
                break
            each = run(best.settings._replace(throughput_target_gbps=target))
            if each.gbps < _HELPS * best.gbps:
                break
            best = each

    def _run(self, work: str, settings: Settings, read: Callable[[Share], list[Report]]) -> Measurement:
        share, began = self._limits.next(), time.perf_counter()
        reports = read(share)
        each = summarize(work, settings, reports)
        self._limits.spend(
            time.perf_counter() - began, sum(sum(report.sizes) for report in reports), sum(each.requests.values())
        )
        self._result.measured.append(each)
        tell(f"  {describe_run(each)}: {rate(each)}")
        return each


def describe_run(each: Measurement) -> str:
    """What a run did, in a few words."""
    settings, usual = each.settings, Settings()
    if each.work == "small":
        words = [f"small objects, {counted(settings.workers, 'worker')}"]
    else:
        words = [f"{each.work} reads" if each.work == "large" else "saves", f"{settings.part_size // _MIB} MiB parts"]
    if settings.look_ahead is not None:
        on = "" if settings.max_connections == usual.max_connections else f" on {settings.max_connections}"
        words.append(f"{settings.look_ahead} ahead{on}")
    if settings.throughput_target_gbps != usual.throughput_target_gbps:
        words.append(f"target {settings.throughput_target_gbps:g}")
    return ", ".join(words)


def rate(each: Measurement) -> str:
    """How fast a run was."""
    objects = f"{each.objects_per_second:,.0f} objects/s, " if each.work == "small" else ""
    return f"{objects}{each.gbps:.2f} Gbit/s"


def worker_counts(most: int) -> list[int]:
    """The numbers of workers to try: powers of two up to the largest, and that."""
    return sorted({*_powers_of_two(most), most})


def _powers_of_two(most: int) -> Iterator[int]:
    number = 1
    while number <= most:
        yield number
        number *= 2


def processors() -> int:
    """How many processors this process may use, as far as the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
