"""The command; what it does is in the package's docstring."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import random
import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from s3torchconnector._config import GIB, KIB
from s3torchconnector._s3client import S3Client
from s3torchconnector.testing import S3Server
from tests.faults.corpus import Corpus
from tests.faults.operations import Place
from tests.faults.workload import Workload, endless
from tests.servers.faults import Mix
from tests.servers.misbehaving import MisbehavingProxy
from tests.soak.lines import FEWEST, LINES
from tests.soak.plot import draw
from tests.soak.sampler import Sampler
from tests.wire.support import REGION

_BUILD = Path(__file__).parents[2] / "build"
_M_MMAP_THRESHOLD = -3
_DEADLINE = 60.0  # seconds for one operation


def main(
    seconds: Annotated[float, typer.Option(min=2 * FEWEST, help="How long to go on.")] = 600,
    fraction: Annotated[float, typer.Option(min=0, max=0.9, help="Of the responses that go wrong.")] = 0.2,
    threads: Annotated[int, typer.Option(min=1, help="That read and save.")] = 8,
    seed: Annotated[int | None, typer.Option(help="What everything is drawn from.")] = None,
) -> None:
    """Read and save through a proxy that misbehaves, and see whether memory, threads, sockets and speed stay flat.

    Writes build/soak.png and build/soak.json. Ends with status 1 if a line is not flat, a byte is wrong, an operation
    hangs, or an upload is left behind.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end with it
    _give_large_blocks_back()
    mix = Mix(random.randrange(1 << 32) if seed is None else seed, fraction)
    print(f"seed {mix.seed}: {seconds:g} s, {fraction:.0%} of all responses go wrong", flush=True)
    soak = _Soak(mix, threads)
    with S3Server() as server, server.exported():
        soak.run(server, seconds)
    problems = [*soak.workload.wrong, *soak.left_behind, *_not_flat(soak.sampler)]
    _write(soak, problems)
    sys.exit("\n".join(problems) or 0)


def _give_large_blocks_back() -> None:
    """Have glibc give freed blocks of 128 KiB and more back at once, so that memory is what is in use.

    By default it raises that size to that of the largest block that was freed, up to 32 MiB, and keeps what is smaller
    for later: the process held 550 MiB of which 110 to 270 were in use, and seemed to grow for minutes.
    https://man7.org/linux/man-pages/man3/mallopt.3.html (M_MMAP_THRESHOLD)
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 128 * KIB)


class _Soak:
    """One run and what came of it."""

    def __init__(self, mix: Mix, threads: int) -> None:
        self.mix = mix
        self.threads = threads
        self.workload = Workload(mix.seed, _DEADLINE)
        self.sampler = Sampler(lambda: self.workload.moved.bytes)
        self.left_behind: list[str] = []

    def run(self, server: S3Server, seconds: float) -> None:
        corpus = Corpus(server.make_bucket("soak"))
        with S3Client(REGION, endpoint=server.endpoint) as direct:
            with MisbehavingProxy(server.endpoint, self.mix) as proxy:
                place = Place("soak", corpus, proxy.endpoint, direct)
                end = time.monotonic() + seconds
                operations = endless(self.mix.seed, lambda: time.monotonic() < end)
                with self.sampler.running():
                    self.workload.run(place, operations, self.threads)
                self.report = proxy.report()
            place.close()
            left = {upload.upload_id: upload.key for upload in direct.list_multipart_uploads("soak")}
        for each in left.keys() - set(self.report.lost_uploads):
            self.left_behind.append(f"left behind: upload {each} of {left[each]}")


def _not_flat(sampler: Sampler) -> list[str]:
    said = []
    for line in LINES:
        early, late = line.medians(sampler.samples[line.name])
        flat = line.is_flat(sampler.samples[line.name])
        print(f"{line.name:12} {early:8.1f} -> {late:8.1f} {line.unit}{'' if flat else '   NOT FLAT'}")
        if not flat:
            said.append(f"{line.name} is not flat: {early:.1f} in the second quarter, {late:.1f} in the last")
    return said


def _write(soak: _Soak, problems: list[str]) -> None:
    moved, report, errors = soak.workload.moved, soak.report, soak.workload.errors
    summary = (
        f"seed {soak.mix.seed}: {moved.reads} reads, {moved.saves} saves, {moved.bytes / GIB:.1f} GiB, "
        f"{sum(report.faults.values())} faults in {report.answers} responses, {errors.total()} clear errors"
    )
    print(summary)
    _BUILD.mkdir(exist_ok=True)
    draw(soak.sampler.seconds, soak.sampler.samples, summary, _BUILD / "soak.png")
    details = {"summary": summary, "report": dataclasses.asdict(report), "errors": errors, "problems": problems}
    samples = {"seconds": soak.sampler.seconds, **soak.sampler.samples}
    (_BUILD / "soak.json").write_text(json.dumps({**details, "samples": samples}, indent=1))
    print("written: build/soak.png, build/soak.json")


if __name__ == "__main__":
    typer.run(main)
