"""``s3torch inspect``: what is in a file of tensors, a checkpoint or a manifest, without fetching tensors.

Kinds are recognised by content: an object by its first bytes, a prefix by the objects directly below it. Pickles are
read, not run: see ``_pickles``. PyTorch is not imported.
"""

from __future__ import annotations

from typing import Annotated

import typer

from s3torchconnector._checkpoint_manager._store import Store
from s3torchconnector._cli._checkpoints._states import steps_of
from s3torchconnector._cli._connection import Connection, connects
from s3torchconnector._cli._endings import fail
from s3torchconnector._cli._inspect._dcp import describe_checkpoint
from s3torchconnector._cli._inspect._description import Description
from s3torchconnector._cli._inspect._folders import Folder
from s3torchconnector._cli._inspect._objects import describe_object, is_pickle_of_checkpoint, json_of
from s3torchconnector._cli._inspect._print import print_description
from s3torchconnector._cli._inspect._remote_file import RemoteFile
from s3torchconnector._cli._inspect._steps import describe_step, step_at
from s3torchconnector._cli._location import Location, Prefix
from s3torchconnector._cli._output import Json, print_json
from s3torchconnector._errors import S3FormatError, S3NotFoundError
from s3torchconnector._plural import counted
from s3torchconnector._s3client import S3Client
from s3torchconnector._uri import display_uri

__all__ = ["inspect"]

_Totals = Annotated[bool, typer.Option("--totals", help="Leave out the single tensors.")]


@connects
def inspect(location: Prefix, *, totals: _Totals = False, as_json: Json = False, connection: Connection) -> None:
    """Show the tensors of a file or checkpoint: names, types, shapes, bytes, totals. Fetches no tensor, runs no pickle.

    Knows archives of torch.save, safetensors files, folders of them (Hugging Face), manifests, and checkpoints of
    torch.distributed.checkpoint and S3CheckpointManager. Ends with 1 if something is missing or damaged.
    """
    with connection.opened() as client:
        found = describe(client, location)
    if as_json:
        print_json(found.document(only_totals=totals))
    else:
        print_description(found, only_totals=totals)
    if found.problems:
        raise fail(f"{found.uri} has {counted(len(found.problems), 'problem')}: {found.problems[0]}")


def describe(client: S3Client, location: Location) -> Description:
    """Describe what is at a location.

    Raises:
        S3FormatError: it is nothing that is known.
        S3Exception: an error occurred accessing S3.
    """
    step = step_at(client, *location)
    if step is None:
        return _describe(client, location)
    try:
        return describe_step(*step)
    except S3NotFoundError as error:
        not_committed = error
    try:
        return _describe(client, location)  # by others, with names like those of S3CheckpointManager
    except S3FormatError:
        raise not_committed from None


def _describe(client: S3Client, location: Location) -> Description:
    bucket, key = location
    if key and not key.endswith("/"):
        try:
            return _describe_object(client, location)
        except S3NotFoundError:
            key += "/"
    found = Folder(client, bucket, key).describe()
    if found is not None:
        return found
    steps = steps_of(Store(f"s3://{bucket}/{key}", client))
    return Description(display_uri(bucket, key), "checkpoints", "checkpoints of S3CheckpointManager", steps=steps)


def _describe_object(client: S3Client, location: Location) -> Description:
    file = RemoteFile(client, *location)
    folder, slash, name = location.key.rpartition("/")
    if is_pickle_of_checkpoint(file):
        return describe_checkpoint(client, location.bucket, folder + slash, file)
    if (json_of(file) or {}).get("weight_map") is not None:
        return Folder(client, location.bucket, folder + slash).describe_index(name)
    return describe_object(file)
