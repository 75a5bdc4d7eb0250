"""`python -m benchmarks`: prepare, measure, report. The strategy is in the package's docstring."""

from __future__ import annotations

import compileall
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks import bucket, cases, figures, litdata, objects, passages, peer, plot, report, runner, servers, words
from benchmarks.cases import Case
from benchmarks.environments import EnvironmentFault
from benchmarks.job import REGION, Job
from benchmarks.record import Results
from benchmarks.results import Row
from benchmarks.runner import Contenders

_SIZE, _QUICK_SIZE = 1 << 30, 256 << 20
_BUCKET_OBJECTS, _QUICK_BUCKET_OBJECTS = 2000, 400
_LOADS = ("dcp-load", "dcp-partial")  # the works that need a distributed checkpoint
_HELP = """Compare this connector with the native one (1.5.0), with litdata and with the limit of this machine.

Starts its own servers (nginx), installs the native connector into .venv-peer and litdata into .venv-litdata, runs
every contender in turn in fresh processes and prints speeds, ratios, processor time and memory beside the goals.

A complete run takes about a quarter of an hour. It writes benchmarks/results/latest.json, and from that the figures in
the documents and docs/images/benchmark.png. A part of it (names, --quick, --bucket) writes build/bench.json, .md and
.png instead.
"""


@dataclass(frozen=True)
class Place:
    """Where the work happens: the contenders and their calls, by case."""

    cases: tuple[Case, ...]
    contenders: Contenders
    jobs: dict[str, Job]
    nginx: str | None = None


def main(
    names: Annotated[list[str] | None, typer.Argument(help="What to measure; everything if absent.")] = None,
    bench: Annotated[list[str] | None, typer.Option(help="The same as a name; may be repeated.")] = None,
    runs: Annotated[int, typer.Option(min=1, help="Rounds; medians are reported.")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="A quarter of the bytes and objects.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="Show the names and goals, and stop.")] = False,
    bucket_uri: Annotated[
        str | None, typer.Option("--bucket", help="s3://bucket[/prefix]: use this instead of local servers.")
    ] = None,
    region: Annotated[str, typer.Option(help="Of that bucket.")] = REGION,
    endpoint: Annotated[str | None, typer.Option(help="Of that bucket, if it is not AWS.")] = None,
    path_style: Annotated[bool, typer.Option("--path-style", help="Address that bucket by path.")] = False,
) -> None:
    console = Console(width=None if sys.stdout.isatty() else 190)
    wanted = _chosen([*(names or []), *(bench or [])])
    if list_:
        _list(console, wanted)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and workers end with it
    target = bucket.Target(bucket_uri, region, endpoint, path_style) if bucket_uri else None
    if target is not None:
        there = cases.in_bucket(_QUICK_BUCKET_OBJECTS if quick else _BUCKET_OBJECTS)
        wanted = tuple(case for case in there if case.name in [each.name for each in wanted])
        if not wanted:
            raise typer.BadParameter(f"in a bucket there are: {', '.join(case.name for case in there)}")
    whole = not quick and target is None and wanted == cases.CASES
    failures: list[str] = []
    with (
        objects.local(_QUICK_SIZE if quick else _SIZE) as folder,
        _place(folder, wanted, target, quick) as place,
    ):
        rows = [row for case in place.cases if (row := _measure(case, place, runs, quick, failures)) is not None]
        size = place.jobs[place.cases[0].name].size
    results = Results(report.machine(place.nginx, runs), tuple(row.record(size) for row in rows))
    report.show(results, console)
    written = _publish(results) if whole and not failures else _keep(results)
    console.print(f"written: {', '.join(written)}", highlight=False, soft_wrap=True)
    if failures:
        sys.exit("\n".join(failures))


def _publish(results: Results) -> list[str]:
    """The results of a whole run go into the repository."""
    results.write(objects.root() / figures.RESULTS)
    return [str(figures.RESULTS), *figures.write(objects.root())]


def _keep(results: Results) -> list[str]:
    """The results of some rows are not written into it."""
    path = Path("build/bench.json")
    table, picture = path.with_suffix(".md"), path.with_suffix(".png")
    results.write(objects.root() / path)
    (objects.root() / table).write_text(passages.table(results) + "\n", encoding="utf-8")
    drawn = plot.draw(results, objects.root() / picture)
    return [str(path), str(table), *([str(picture)] if drawn else [])]


def _chosen(names: list[str]) -> tuple[Case, ...]:
    unknown = set(names) - set(cases.BY_NAME)
    if unknown:
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}; there are: {', '.join(cases.BY_NAME)}")
    return tuple(case for case in cases.CASES if not names or case.name in names)


def _list(console: Console, wanted: tuple[Case, ...]) -> None:
    table = Table("name", "what", "goals")
    for case in wanted:
        table.add_row(case.name, case.heading(_SIZE), ", ".join(map(str, case.goals)))
    console.print(table)


@contextmanager
def _place(folder: Path, wanted: tuple[Case, ...], target: bucket.Target | None, quick: bool) -> Iterator[Place]:
    python = peer.interpreter(objects.root() / ".venv-peer")
    wanted, theirs, left_out = litdata.beside(wanted, objects.root() / ".venv-litdata")
    if left_out:
        Console(stderr=True).print(left_out, markup=False, highlight=False, soft_wrap=True)
    compileall.compile_dir(objects.root() / "src", quiet=1)  # as pip does with what it installs
    for ranks in {case.ranks for case in wanted if case.work in _LOADS}:
        objects.write_distributed(folder, _checkpoint(folder).stat().st_size, ranks)
    if any(case.work == "safetensors-load" for case in wanted):
        objects.write_safetensors(folder / objects.BUCKET / "model.safetensors", _checkpoint(folder).stat().st_size)
    if target is None:
        with servers.running(folder) as running:
            contenders = Contenders(python, runner.local_environment(running.authority), theirs)
            jobs = {case.name: _local_job(case, folder, running.endpoints[case.server]) for case in wanted}
            yield Place(wanted, contenders, jobs, running.nginx)
    else:
        count = _QUICK_BUCKET_OBJECTS if quick else _BUCKET_OBJECTS
        with bucket.uploaded(target, folder, count) as job:
            jobs = {case.name: replace(job, connections=case.connections, ranks=case.ranks) for case in wanted}
            yield Place(wanted, Contenders(python, dict(os.environ), theirs), jobs)


def _local_job(case: Case, folder: Path, endpoint: str) -> Job:
    checkpoint = _checkpoint(folder)
    return Job(
        bucket=objects.BUCKET,
        size=checkpoint.stat().st_size,
        small_size=objects.SMALL_SIZE,
        objects=case.amount,
        copy=str(checkpoint),
        connections=case.connections,
        tree="train/",
        endpoint=endpoint,
        ranks=case.ranks,
    )


def _checkpoint(folder: Path) -> Path:
    return folder / objects.BUCKET / "checkpoint.pt"


def _measure(case: Case, place: Place, runs: int, quick: bool, failures: list[str]) -> Row | None:
    """The row, or None and another failure: those that were measured before are worth a table."""
    status = Console(stderr=True)
    with status.status(case.name) as line:

        def once(who: str) -> runner.Sample:
            job = replace(place.jobs[case.name], objects=case.amount_for(who, quick))
            return place.contenders.run(who, case.work, job)

        def progress(who: str, number: int) -> None:
            line.update(f"{case.name}: {who}, {f'run {number} of {runs}' if number else 'warming up'}")

        try:
            row = Row(case, runner.interleave(case, runs, once, progress))
        except runner.MeasurementError as error:
            failures.append(str(error))
            status.print(f"[red]{escape(str(error))}")
            return None
    measured = row.record(place.jobs[case.name].size)
    status.print(
        f"{case.name}: {', '.join(f'{who} {words.speed(measured, who)}' for who in row.samples)}",
        highlight=False,
        soft_wrap=True,
    )
    return row


def run() -> None:
    """The command line; failures that a user can fix are one message, not a traceback."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=_HELP)(main)
    try:
        app()
    except (bucket.BucketError, servers.ServerError, EnvironmentFault, runner.MeasurementError) as error:
        Console(stderr=True).print(f"[red]{escape(str(error))}")
        sys.exit(1)


if __name__ == "__main__":
    run()
