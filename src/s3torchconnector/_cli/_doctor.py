"""``s3torch doctor``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import groupby
from typing import Annotated

import typer
from rich.text import Text

from s3torchconnector._cli._connection import Connection, connects
from s3torchconnector._cli._endings import FAILED, clean_when_terminated
from s3torchconnector._cli._location import Location, Prefix
from s3torchconnector._cli._output import Json, print_json, print_line, stdout_console
from s3torchconnector._doctor import Finding, Status, Target, examine
from s3torchconnector._plural import counted
from s3torchconnector._transfer import ranks_of_node
from s3torchconnector._version import __version__

_COLOURS = {Status.PASS: "green", Status.WARNING: "yellow", Status.FAILURE: "bold red", Status.SKIPPED: "dim"}

_WRONG = (Status.FAILURE, Status.WARNING)


@connects
def doctor(
    prefix: Prefix,
    *,
    write: Annotated[
        bool,
        typer.Option("--write", help="Also try what writes, with small objects below a scratch prefix, and remove it."),
    ] = False,
    seconds: Annotated[float, typer.Option(min=0.0, help="Measure reads for so many seconds; 0 leaves it out.")] = 5.0,
    workers: Annotated[int, typer.Option(min=0, help="DataLoader workers of each rank, for the limits.")] = 0,
    ranks: Annotated[
        int | None, typer.Option(min=1, help="Training processes on this node; by default $LOCAL_WORLD_SIZE, or 1.")
    ] = None,
    max_connections: Annotated[int | None, typer.Option(min=1, help="That of the job's S3ClientConfig.")] = None,
    as_json: Json = False,
    connection: Connection,
) -> None:
    """Say what is wrong with a set-up, and what to type. Exit code 1 if a check fails."""
    settings = {} if max_connections is None else {"max_connections": max_connections}
    target = Target(
        *prefix,
        region=connection.region_name,
        endpoint=connection.endpoint_url,
        config=connection.config(**settings),
        write=write,
        seconds=seconds,
        workers=workers,
        ranks=ranks or ranks_of_node(),
    )
    with clean_when_terminated(), closing(examine(target)) as found:
        findings = list(found if as_json else _printed(found))
    is_well = all(finding.status is not Status.FAILURE for finding in findings)
    if as_json:
        print_json(_document(prefix, is_well, findings))
    else:
        print_line(_summary(findings))
    if not is_well:
        raise typer.Exit(FAILED)


def _document(prefix: Location, is_well: bool, findings: list[Finding]) -> dict[str, object]:
    rows = [{**finding._asdict(), "status": finding.status.value} for finding in findings]
    return {"uri": str(prefix), "version": __version__, "ok": is_well, "findings": rows}


def _summary(findings: list[Finding]) -> str:
    """What is wrong, in one line: ``1 failure: keys; 2 warnings: memory, checksums``."""
    found = [(status, [each.check for each in findings if each.status is status]) for status in _WRONG]
    texts = [f"{counted(len(checks), status.value)}: {', '.join(checks)}" for status, checks in found if checks]
    return "; ".join(texts) or "nothing is wrong"


def _printed(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Print findings, each at once, because the next may take seconds. Those skipped for one reason are one line."""
    for reason, group in groupby(findings, lambda finding: finding.text * (finding.status is Status.SKIPPED)):
        checks = []
        for finding in group:
            checks.append(finding.check)
            if not reason:
                _print(finding.check, finding)
            yield finding
        if reason:
            _print(f"{', '.join(checks)}:" if checks[1:] else finding.check, finding)


def _print(checks: str, finding: Finding) -> None:
    status, fix = finding.status.value, f". Fix: {finding.fix}" if finding.fix else ""
    line = f"{checks:<20} {finding.text}{fix}"
    if sys.stdout.isatty():
        stdout_console().print(Text.assemble((f"{status:<8}", _COLOURS[finding.status]), line), soft_wrap=True)
    else:
        print_line(f"{status:<8}{line}")
        sys.stdout.flush()
