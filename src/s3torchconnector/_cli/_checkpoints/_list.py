"""``s3torch checkpoints list``."""

from __future__ import annotations

from s3torchconnector._checkpoint_manager._store import Store
from s3torchconnector._cli._checkpoints._states import print_steps, steps_of
from s3torchconnector._cli._connection import Connection, connects
from s3torchconnector._cli._location import Prefix
from s3torchconnector._cli._output import Json, print_json, readable, tell
from s3torchconnector._plural import counted


@connects
def list_steps(prefix: Prefix, *, as_json: Json = False, connection: Connection) -> None:
    """List steps: committed or not, their format, files, bytes and age, and what interrupted saves left."""
    with connection.opened() as client:
        states = steps_of(Store(str(prefix), client))
    if as_json:
        print_json({"uri": str(prefix), "steps": [each.document() for each in states]})
        return
    if states:
        print_steps(states)
    committed = [each for each in states if each.files]
    tell(f"{counted(len(committed), 'committed step')} at {prefix}, {readable(sum(each.bytes for each in committed))}")
