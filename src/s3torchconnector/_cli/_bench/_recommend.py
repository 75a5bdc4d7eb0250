"""From measurements to recommended workers and settings, each with its reason. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from s3torchconnector._cli._bench._measurement import Measurement, Settings
from s3torchconnector._plural import counted

_ENOUGH = 0.95  # of the best: what is measured varies by some per cent
_DEFAULT = Settings()
_MIB = 1024**2


class Recommendation(NamedTuple):
    """What to set, and why in one line. A value of None is the default: leave it out."""

    name: str
    value: Any
    reason: str


def recommend(measured: Sequence[Measurement]) -> list[Recommendation]:
    """What the measurements speak for.

    If a default, or less of something, is as good within 5 %, it is recommended: less load, and less to write.
    """
    small = [each for each in measured if each.work == "small" and each.objects]
    large = [each for each in measured if each.work in ("large", "save") and each.objects]
    by_workers = [each for each in small if each.settings._replace(workers=0) == _DEFAULT]
    return [*_workers(by_workers), *_in_flight(small), *_part_size(large), *_target(large)]


def as_code(recommended: Sequence[Recommendation]) -> str:
    """What a program says, for all that is no default."""
    chosen = {each.name: each.value for each in recommended if each.value is not None}
    workers, look_ahead = chosen.pop("num_workers", None), chosen.pop("look_ahead", None)
    size = chosen.get("part_size")
    if size is not None:
        chosen["part_size"] = f"{size // _MIB} * 1024**2"
    lines = [f"S3ClientConfig({', '.join(f'{name}={value}' for name, value in chosen.items())})"] if chosen else []
    lines += [f"S3IterableDataset.from_prefix(..., look_ahead={look_ahead})"] if look_ahead is not None else []
    lines += [f"DataLoader(..., num_workers={workers})"] if workers is not None else []
    return "\n".join(lines)


def _workers(measured: Sequence[Measurement]) -> list[Recommendation]:
    if not measured:
        return []
    chosen = _least(measured, lambda each: each.objects_per_second, lambda each: each.settings.workers)
    most = max(measured, key=lambda each: each.settings.workers)
    number = chosen.settings.workers
    reason = f"{counted(number, 'worker')} read {chosen.objects_per_second:,.0f} objects/s"
    if most.settings.workers > number:
        reason += f"; {most.settings.workers} read {most.objects_per_second:,.0f}"
    elif len(measured) > 1:
        reason += ", the most of all numbers that were tried; more were not tried"
    return [Recommendation("num_workers", number, reason)]


def _in_flight(small: Sequence[Measurement]) -> list[Recommendation]:
    """The look-ahead and the connections, with one number of workers."""
    tried = {each.settings.workers for each in small if _in_flight_of(each) != _in_flight_of_settings(_DEFAULT)}
    compared = [each for each in small if each.settings.workers in tried]
    if not compared:
        return []
    chosen = _least(
        compared, lambda each: each.objects_per_second, lambda each: (not _is_default(each), _objects_in_flight(each))
    )
    rate = f"{chosen.objects_per_second:,.0f} objects/s"
    best = max(compared, key=lambda each: each.objects_per_second)
    if _is_default(chosen):
        others = [each for each in compared if each is not chosen]
        most = max(others, key=lambda each: each.objects_per_second, default=chosen)
        reason = f"the default reads {rate}; the best other, {_in_flight_text(most)}, {most.objects_per_second:,.0f}"
        return [Recommendation("look_ahead", None, reason), Recommendation("max_connections", None, reason)]
    usual = next((each for each in compared if _is_default(each)), best)
    reason = f"{_in_flight_text(chosen)} reads {rate}; the default reads {usual.objects_per_second:,.0f}"
    connections = chosen.settings.max_connections
    return [
        Recommendation("look_ahead", chosen.settings.look_ahead, reason),
        Recommendation(
            "max_connections",
            None if connections == _DEFAULT.max_connections else connections,
            f"that look_ahead was measured with {connections} connections",
        ),
    ]


def _part_size(large: Sequence[Measurement]) -> list[Recommendation]:
    """One part size for reads and saves: that whose worse one of both comes nearest to the best."""
    compared = [each for each in large if each.settings._replace(part_size=_DEFAULT.part_size) == _DEFAULT]
    best = {work: max(each.gbps for each in compared if each.work == work) for work in {e.work for e in compared}}
    shares: dict[int, float] = {}
    for each in compared:
        share = each.gbps / best[each.work]
        shares[each.settings.part_size] = min(share, shares.get(each.settings.part_size, 1.0))
    if len(shares) < 2:
        return []
    enough = _ENOUGH * max(shares.values())
    size = min(size for size, share in shares.items() if share >= enough)
    rates = [each for each in compared if each.settings.part_size == size]
    reason = " and ".join(f"{_verb(each.work)} at {each.gbps:.2f} Gbit/s" for each in rates)
    tops = " and ".join(f"{value:.2f}" for value in (best[each.work] for each in rates))
    value = None if size == _DEFAULT.part_size else size
    return [Recommendation("part_size", value, f"parts of {size // _MIB} MiB {reason}; the fastest part sizes, {tops}")]


def _target(large: Sequence[Measurement]) -> list[Recommendation]:
    """A higher target, if reads were faster with it."""
    reads = [each for each in large if each.work == "large"]
    tried = {each.settings.part_size for each in reads if each.settings.throughput_target_gbps != _usual_target()}
    compared = [each for each in reads if each.settings.part_size in tried]
    if not compared:
        return []
    chosen = _least(compared, lambda each: each.gbps, lambda each: each.settings.throughput_target_gbps)
    target = chosen.settings.throughput_target_gbps
    usual = min(compared, key=lambda each: each.settings.throughput_target_gbps)
    if chosen is usual:
        higher = max((each for each in compared if each is not usual), key=lambda each: each.gbps, default=usual)
        reason = f"the default reads at {usual.gbps:.2f} Gbit/s; the best higher one, at {higher.gbps:.2f}"
        return [Recommendation("throughput_target_gbps", None, reason)]
    reason = f"a target of {target:g} Gbit/s reads at {chosen.gbps:.2f}; the default, at {usual.gbps:.2f}"
    return [Recommendation("throughput_target_gbps", target, reason)]


def _least(
    measured: Sequence[Measurement], rate: Callable[[Measurement], float], amount: Callable[[Measurement], Any]
) -> Measurement:
    """Of those that are fast enough, that which needs least."""
    enough = _ENOUGH * max(map(rate, measured))
    return min((each for each in measured if rate(each) >= enough), key=amount)


def _in_flight_of(each: Measurement) -> tuple[int | None, int]:
    return _in_flight_of_settings(each.settings)


def _in_flight_of_settings(settings: Settings) -> tuple[int | None, int]:
    return settings.look_ahead, settings.max_connections


def _is_default(each: Measurement) -> bool:
    return _in_flight_of(each) == _in_flight_of_settings(_DEFAULT)


def _objects_in_flight(each: Measurement) -> int:
    return each.settings.look_ahead or each.settings.max_connections


def _in_flight_text(each: Measurement) -> str:
    look_ahead, connections = _in_flight_of(each)
    return f"look_ahead={look_ahead}" + ("" if connections == _DEFAULT.max_connections else f" on {connections}")


def _usual_target() -> float:
    return _DEFAULT.throughput_target_gbps


def _verb(work: str) -> str:
    return {"large": "read", "save": "store"}[work]
