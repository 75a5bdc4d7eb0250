"""Interleaved runs: in every round each contender works once, in a fresh process, before the next round.

Interleaving makes ratios fair on a machine whose speed drifts; a fresh process makes memory, warm pools and imports
comparable. A worker is its own process group. The whole group is killed when the worker is late or fails, or when the
benchmark is interrupted, so that DataLoader workers never outlive it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import environments
from benchmarks.cases import LIMIT, LITDATA, OURS, Case
from benchmarks.job import Job
from benchmarks.objects import root

_TIMEOUT = 300  # seconds for one measurement
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_DROPPED = (*_PROXIES, "PYTHONDONTWRITEBYTECODE")


class MeasurementError(Exception):
    """A worker failed; the text holds the end of its output."""


@dataclass(frozen=True)
class Sample:
    """One measurement. `amount` is in the unit of its case; `transferred` is in bytes, 0 if it is not counted."""

    seconds: float
    amount: float
    cpu_seconds: float
    growth_mib: float
    transferred: int = 0

    @property
    def speed(self) -> float:
        return self.amount / self.seconds


@dataclass(frozen=True)
class Contenders:
    """How to run each side: its interpreter, and the environment that leads it to the servers."""

    peer: Path
    environment: Mapping[str, str]
    litdata: Path | None = None

    def run(self, who: str, work: str, job: Job) -> Sample:
        """Measure once.

        Raises:
            MeasurementError: the worker failed or took longer than five minutes.
        """
        python, environment = sys.executable, dict(self.environment)
        if who not in (OURS, LIMIT):
            other = self.litdata if who == LITDATA else self.peer
            python, environment = str(other), environments.variables(environment)
        command = [python, "-W", "ignore", "-m", "benchmarks.worker", who, work, job.to_json()]
        worker = subprocess.Popen(
            command,
            cwd=root(),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            output, errors = worker.communicate(timeout=_TIMEOUT)
        except subprocess.TimeoutExpired as error:
            raise MeasurementError(f"{who} {work}: not done after {_TIMEOUT} s") from error
        finally:
            _kill(worker)
        if worker.returncode:
            raise MeasurementError(f"{who} {work}: exit status {worker.returncode}\n{errors[-2000:]}")
        return Sample(**json.loads(output.splitlines()[-1]))


def local_environment(authority: Path) -> dict[str, str]:
    """Of workers that talk to the local servers: dummy keys, no proxies, the servers' certificate authority.

    Bytecode may be written: pip compiles what it installs, so no user compiles the connector at every start.

    Ours honours AWS_CA_BUNDLE; the peer's TLS library reads SSL_CERT_FILE.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith("AWS_") and k not in _DROPPED}
    return {
        **kept,
        "AWS_ACCESS_KEY_ID": "benchmark",
        "AWS_SECRET_ACCESS_KEY": "benchmark",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CA_BUNDLE": str(authority),
        "SSL_CERT_FILE": str(authority),
    }


def interleave(
    case: Case,
    runs: int,
    measure: Callable[[str], Sample],
    progress: Callable[[str, int], None],
) -> dict[str, list[Sample]]:
    """`runs` samples of every contender. Each round starts with another one, so that none is always first.

    One run comes before all of them and does not count: it finds the machine's memory and caches as another case has
    left them, and was up to a third slower than those after it.
    """
    samples: dict[str, list[Sample]] = {who: [] for who in case.who}
    progress(case.who[0], 0)
    measure(case.who[0])
    for number in range(runs):
        first = number % len(case.who)
        for who in case.who[first:] + case.who[:first]:
            progress(who, number + 1)
            samples[who].append(measure(who))
    return samples


def _kill(worker: subprocess.Popen[str]) -> None:
    try:
        os.killpg(worker.pid, signal.SIGKILL)  # the worker leads its group, so this is its id
    except ProcessLookupError:
        return  # the usual end: nothing of the group is left
    worker.wait()
