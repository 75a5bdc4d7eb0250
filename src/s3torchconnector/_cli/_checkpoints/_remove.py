"""``s3torch checkpoints clean`` and ``delete``. Both say what they would delete, and ask."""

from __future__ import annotations

import re
import time
from typing import Annotated

import typer

from s3torchconnector._checkpoint_manager._store import Store
from s3torchconnector._checkpoint_manager._upkeep import clean
from s3torchconnector._cli._checkpoints._states import StepState, print_steps, steps_of
from s3torchconnector._cli._confirm import Yes, confirm, expect_terminal
from s3torchconnector._cli._connection import Connection, connects
from s3torchconnector._cli._endings import fail
from s3torchconnector._cli._location import Prefix
from s3torchconnector._cli._output import DryRun, Json, print_json, print_line, tell
from s3torchconnector._plural import counted

_DURATION = re.compile(r"(\d+)(s|m|h|d|)", re.ASCII)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}


def parse_duration(text: str) -> int:
    """Seconds, from a number with a unit.

    >>> from s3torchconnector._cli._checkpoints._remove import parse_duration
    >>> parse_duration("90"), parse_duration("2h")
    (90, 7200)
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no duration: write 90s, 30m, 12h or 7d")
    return int(match[1]) * _SECONDS[match[2]]


_MinAge = Annotated[
    int,
    typer.Option(
        parser=parse_duration,
        metavar="DURATION",
        help="Leave alone what is younger (30m, 12h, 7d). A save that is under way looks like one that was "
        "interrupted: be sure that it is longer than any save takes.",
    ),
]
_Steps = Annotated[list[int], typer.Argument(metavar="STEP...", help="The numbers of the steps.")]


@connects
def clean_steps(
    prefix: Prefix,
    *,
    min_age: _MinAge = "1d",  # type: ignore[assignment]
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
    connection: Connection,
) -> None:
    """Delete what interrupted saves left: objects of no committed step, and unfinished uploads."""
    begun = time.monotonic()
    if not (yes or dry_run):
        expect_terminal("checkpoints clean")
    with connection.opened() as client:
        store = Store(str(prefix), client)
        found = clean(store, dry_run=True, min_age=min_age)
        if not as_json:
            for kind, uris in (("object", found.objects), ("upload", found.uploads)):
                for uri in uris:
                    print_line(f"{kind}  {uri}")
        there = bool(found.objects or found.uploads)
        count = f"{counted(len(found.objects), 'object')} and {counted(len(found.uploads), 'unfinished upload')}"
        if there and not dry_run:
            if not yes:
                confirm(f"Delete {count} below {prefix}?")
            # What has grown old enough since it was shown stays.
            found = clean(store, dry_run=False, min_age=min_age + int(time.monotonic() - begun))
    deleted = there and not dry_run
    if as_json:
        print_json({"objects": found.objects, "uploads": found.uploads, "deleted": deleted})
    tell(f"deleted {count}" if deleted else f"{count} would be deleted" if there else "nothing is left over")


@connects
def delete_steps(
    prefix: Prefix,
    steps: _Steps,
    *,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
    connection: Connection,
) -> None:
    """Delete committed steps: the manifest first, so that no half of one is ever taken for a checkpoint."""
    if not (yes or dry_run):
        expect_terminal("checkpoints delete")
    with connection.opened() as client:
        store = Store(str(prefix), client)
        chosen = _chosen(steps_of(store), steps, str(prefix))
        if not as_json:
            print_steps(chosen)
        if not dry_run:
            latest = ", the latest among them" if any(each.latest for each in chosen) else ""
            if not yes:
                confirm(f"Delete {counted(len(chosen), 'step')} at {prefix}{latest}?")
            for each in chosen:
                store.delete(each.step)
    if as_json:
        print_json({"steps": [each.document() for each in chosen], "deleted": not dry_run})
    tell(f"{'would delete' if dry_run else 'deleted'} {counted(len(chosen), 'step')}")


def _chosen(states: list[StepState], steps: list[int], uri: str) -> list[StepState]:
    there = {each.step: each for each in states if each.state != "not committed"}
    missing = [step for step in steps if step not in there]
    if missing:
        raise fail(
            f"there is no committed checkpoint of step {missing[0]} at {uri}; nothing was deleted. s3torch checkpoints "
            "list shows the steps, and s3torch checkpoints clean deletes what was never committed"
        )
    return [there[step] for step in sorted(set(steps))]
