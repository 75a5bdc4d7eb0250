"""``s3torch checkpoints verify``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, NamedTuple

import typer

from s3torchconnector._checkpoint_manager._store import Store
from s3torchconnector._checkpoint_manager._upkeep import compared
from s3torchconnector._cli._connection import Connection, connects
from s3torchconnector._cli._endings import fail
from s3torchconnector._cli._location import Prefix
from s3torchconnector._cli._output import Json, print_json, print_line, printable, readable, tell
from s3torchconnector._errors import S3FormatError
from s3torchconnector._plural import counted

_Steps = Annotated[list[int] | None, typer.Option("--step", help="Verify this step only. Can be repeated.")]
_NoRead = Annotated[bool, typer.Option("--no-read", help="Compare only sizes and ETags, by a listing.")]


class _Compared(NamedTuple):
    """One file of a step."""

    step: int
    uri: str
    bytes: int
    problem: str | None


@connects
def verify_steps(
    prefix: Prefix, *, step: _Steps = None, no_read: _NoRead = False, as_json: Json = False, connection: Connection
) -> None:
    """Compare every file of committed steps with what was committed. Ends with 1 if something is wrong.

    Each file is compared by size and ETag, then read, and compared with its checksums: that takes as long as loading.
    """
    damaged: set[int] = set()
    count = size = 0
    with connection.opened() as client:
        store = Store(str(prefix), client)
        steps = step or sorted(store.commits())
        if not steps:
            raise fail(f"there is no committed checkpoint at {prefix}")
        for each in (one for number in steps for one in _compare(store, number, read=not no_read)):
            count, size = count + 1, size + each.bytes
            if each.problem is not None:
                damaged.add(each.step)
            if as_json:
                print_json(each._asdict())
            else:
                wrong = "" if each.problem is None else f"  {printable(each.problem)}"
                print_line(f"{'DAMAGED' if wrong else 'ok':<7}  {each.bytes:>15,}  {printable(each.uri)}{wrong}")
    if damaged:
        names = ", ".join(map(str, sorted(damaged)))
        raise fail(f"damaged: step {names} of {prefix}. Load another step, and delete what is damaged")
    tell(f"{counted(len(steps), 'step')}, {counted(count, 'file')}, {readable(size)}: all as committed")


def _compare(store: Store, step: int, *, read: bool) -> Iterator[_Compared]:
    try:
        for described, wrong in compared(store, step, read=read):
            yield _Compared(step, store.uri(step, described.key), described.size, wrong)
    except S3FormatError as error:  # the manifest
        yield _Compared(step, store.uri(step), 0, str(error))
