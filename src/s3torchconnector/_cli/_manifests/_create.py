"""``s3torch manifest create``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from s3torchconnector._cli._connection import Connection, connects
from s3torchconnector._cli._location import Location, Objects, parse_location
from s3torchconnector._cli._manifests._filters import Chosen, Glob, MaxSize, MinSize, StorageClasses, Suffixes
from s3torchconnector._cli._manifests._info import facts_of, print_facts
from s3torchconnector._cli._output import DryRun, Json, print_json, tell
from s3torchconnector._late_imports import no_fork
from s3torchconnector._uri import parse_object_uri

if TYPE_CHECKING:
    from s3torchconnector.s3manifest import S3Manifest


class Source(str, Enum):
    """What samples are made of: ``S3Manifest.from_...``."""

    prefix = "prefix"
    objects = "objects"
    inventory = "inventory"
    tar = "tar"
    parquet = "parquet"
    mds = "mds"


def _parse_object(text: str) -> Location:
    try:
        parse_object_uri(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return parse_location(text)


_To = Annotated[Location, typer.Option("--to", parser=_parse_object, metavar="S3_URI", help="Where to store it.")]
_From = Annotated[Source, typer.Option("--from", metavar="KIND", help=f"What the URIs name: {', '.join(Source)}.")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
_KeyPrefix = Annotated[str | None, typer.Option(help="With --from inventory: only keys that begin so.")]
_Columns = Annotated[
    list[str] | None, typer.Option("--column", help="With --from parquet: decode only this. Can be repeated.")
]
_ProgressAt = Annotated[
    str | None, typer.Option(metavar="S3_URI", help="With --from tar: keep what was found here, to go on after a stop.")
]
_NoIndex = Annotated[bool, typer.Option("--no-index", help="With --from tar: do not use Energon's indexes.")]
_FILTERS = {"suffixes", "glob", "min_size", "max_size", "storage_classes"}
_TAKES = {
    Source.prefix: _FILTERS,
    Source.inventory: {*_FILTERS, "prefix"},
    Source.tar: {"use_index", "progress_at"},
    Source.parquet: {"columns"},
}


@connects
def create(
    sources: Objects,
    *,
    to: _To,
    source: _From = Source.prefix,
    suffix: Suffixes = None,
    glob: Glob = None,
    min_size: MinSize = None,
    max_size: MaxSize = None,
    storage_class: StorageClasses = None,
    key_prefix: _KeyPrefix = None,
    column: _Columns = None,
    progress_at: _ProgressAt = None,
    no_index: _NoIndex = False,
    overwrite: _Overwrite = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    connection: Connection,
) -> None:
    """List objects, or find the samples in files, and store the list: a manifest, with the version of each object."""
    chosen = Chosen(suffix, glob, min_size, max_size, storage_class)
    of_kinds = {"prefix": key_prefix, "columns": column or None, "progress_at": progress_at}
    index = {"use_index": False} if no_index else {}
    manifest = _made(source, sources, {**chosen.arguments(), **of_kinds, **index}, connection)
    with contextlib.closing(manifest._client):
        was_said = source is Source.prefix and not manifest.archived  # by a warning of each prefix
        if not len(manifest) and not was_said:
            tell(f"s3torch: warning: the manifest of {', '.join(map(str, sources))} has no samples")
        if not dry_run:
            manifest.save(str(to), overwrite=overwrite)
    facts = {"uri": str(to), "stored": not dry_run, **facts_of(manifest._rows)}
    if as_json:
        print_json(facts)
    else:
        print_facts(facts)


def _made(source: Source, sources: list[Location], options: dict[str, Any], connection: Connection) -> S3Manifest:
    """The manifest, not stored.

    Args:
        source, sources: what it is made of.
        options: arguments of ``S3Manifest.from_...``; those that are None were not given.
    """
    arguments = {name: value for name, value in options.items() if value is not None}
    _refuse_what_is_not_for(source, arguments)
    uris = _uris(source, sources)
    with no_fork:
        from s3torchconnector.s3manifest import S3Manifest
    make: Callable[..., S3Manifest] = getattr(S3Manifest, f"from_{source.value}")
    where = {"region": connection.region_name, "endpoint": connection.endpoint_url}
    return make(uris, s3client_config=connection.config(), **where, **arguments)


def _refuse_what_is_not_for(source: Source, arguments: dict[str, Any]) -> None:
    wrong = arguments.keys() - _TAKES.get(source, set())
    if wrong:
        takers = [each.value for each, names in _TAKES.items() if wrong <= names]
        raise typer.BadParameter(
            f"--from {source.value} does not take {', '.join(sorted(wrong))}; --from {' or '.join(takers)} does"
            if takers
            else f"--from {source.value} does not take {', '.join(sorted(wrong))}"
        )


def _uris(source: Source, sources: list[Location]) -> str | list[str]:
    uris = [str(each) if each.key else f"s3://{each.bucket}" for each in sources]
    if source != Source.inventory:
        return uris
    if len(uris) > 1:
        raise typer.BadParameter("--from inventory takes one URI, that of a report's manifest.json")
    return uris[0]
