"""One measurement in a fresh process: `python -m benchmarks.worker WHO WORK JOB` prints one line of JSON.

WHO is `ours`, `peer` (the native connector, its default reader), `peer-ranged` (its ranged reader),
`litdata` or `limit`. The interpreter decides which connector is imported; this module checks that it is the one
that WHO names.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

from benchmarks.job import Job
from benchmarks.meter import Meter
from benchmarks.peer import VERSION


def measure(who: str, work: str, job: Job) -> dict[str, float]:
    """Seconds, amount of work done, processor seconds and growth of memory in MiB."""
    meter = Meter()
    amount = _find(who, work)(job, meter)
    if who != "limit":
        check_version(who)
    return {
        "seconds": meter.seconds,
        "amount": amount,
        "cpu_seconds": meter.cpu_seconds,
        "growth_mib": meter.growth_mib,
        "transferred": meter.transferred,
    }


def _find(who: str, work: str) -> Callable[[Job, Meter], int]:
    if who == "limit":
        from benchmarks import limit

        return limit.WORK[work]
    if who == "litdata":
        from benchmarks import litdata

        return litdata.WORK[work]
    from benchmarks import checkpoints, connector, distributed, training

    return {
        **connector.workloads(ranged=who == "peer-ranged"),
        **distributed.workloads(),
        **checkpoints.workloads(by_hand=who != "ours"),
        **training.workloads(ours=who == "ours"),
    }[work]


def check_version(who: str) -> None:
    """Refuse to publish numbers of the wrong connector."""
    if who == "litdata":
        return  # its environment was checked, and holds no connector
    import s3torchconnector

    version, peer = s3torchconnector.__version__, who.startswith("peer")
    if peer != (version == VERSION):
        sys.exit(f"{who}: this environment holds s3torchconnector {version} at {s3torchconnector.__file__}")


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], sys.argv[2], Job.from_json(sys.argv[3]))))
