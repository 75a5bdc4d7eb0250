"""``s3torch manifest diff``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from s3torchconnector._cli._connection import Connection, connects
from s3torchconnector._cli._location import Location, Object, parse_location
from s3torchconnector._cli._manifests._filters import Chosen, Glob, MaxSize, MinSize, StorageClasses, Suffixes
from s3torchconnector._cli._output import Json, print_json, print_line, printable, readable
from s3torchconnector._errors import S3ConfigurationError
from s3torchconnector._late_imports import no_fork
from s3torchconnector._s3client import S3Client

if TYPE_CHECKING:
    from s3torchconnector._cli._manifests._pinned import Difference
    from s3torchconnector._datasets._rows import Row, Rows

_New = Annotated[
    Location | None,
    typer.Argument(
        parser=parse_location,
        metavar="[S3_URI]",
        help="Another manifest, or a prefix, which ends with a slash. By default, what the manifest was made of.",
    ),
]
_Summary = Annotated[bool, typer.Option("--summary", help="Print only how many objects differ.")]


@connects
def diff(
    manifest: Object,
    other: _New = None,
    *,
    suffix: Suffixes = None,
    glob: Glob = None,
    min_size: MinSize = None,
    max_size: MaxSize = None,
    storage_class: StorageClasses = None,
    summary: _Summary = False,
    as_json: Json = False,
    connection: Connection,
) -> None:
    """Show which objects are added, removed or changed: in another manifest, or in the bucket now.

    A manifest does not know by which filters it was made: give them again to compare it with a bucket.
    """
    with no_fork:
        from s3torchconnector._cli._manifests._pinned import Pinned, differences, fetch, objects_of
    filters = Chosen(suffix, glob, min_size, max_size, storage_class).arguments()
    counts: Counter[str] = Counter()
    with connection.opened() as client:
        old = objects_of(fetch(client, str(manifest)))
        for each in differences(Pinned(old), _new(client, old, other, filters)):
            document = _document(each)
            counts[document["change"]] += 1
            if not summary:
                _print(document, as_json)
    counted = {change: counts[change] for change in ("added", "removed", "changed")}
    if as_json:
        print_json({"summary": counted})
    else:
        print_line(", ".join(f"{count:,} {change}" for change, count in counted.items()))


def _new(client: S3Client, old: Rows, other: Location | None, filters: dict[str, Any]) -> Iterable[Row]:
    """The objects to compare with.

    Raises:
        S3ConfigurationError: it is not known which, or filters are given for a manifest.
    """
    with no_fork:
        from s3torchconnector._cli._manifests._listing import origin_of
        from s3torchconnector._cli._manifests._pinned import fetch, objects_of
    places = [other] if other is not None else origin_of(old)
    if places is None:
        origin = ", ".join(old.header.origin[:5]) or "named objects"
        raise S3ConfigurationError(
            f"the manifest was made of {origin}, not of prefixes: name a prefix to compare it with"
        )
    if other is not None and other.key and not other.key.endswith("/"):
        if filters:
            raise S3ConfigurationError(
                f"filters choose what is listed, and {other} is a manifest: a prefix ends with a slash"
            )
        return objects_of(fetch(client, str(other)))
    return _listed(client, places, filters)


def _listed(client: S3Client, places: list[Location], filters: dict[str, Any]) -> Iterator[Row]:
    with no_fork:
        from s3torchconnector._cli._manifests._listing import pages_of
        from s3torchconnector._datasets._chosen_objects import Filter
        from s3torchconnector._datasets._rows import Row
    chosen = Filter(**filters)
    passes = chosen.compiled()
    for bucket, page in pages_of(client, places):
        for info in page:
            if passes(info) and not chosen.is_unreadable(info):
                yield Row(bucket, info.key, info.size, info.etag)


def _document(each: Difference) -> dict[str, Any]:
    old, new = each
    row = old if new is None else new
    assert row is not None
    document: dict[str, Any] = {"change": "added" if old is None else "removed" if new is None else "changed"}
    document["uri"] = str(Location(row.bucket, row.key))
    for name, side in (("old", old), ("new", new)):
        if side is not None:
            document[name] = {"size": side.size, "etag": side.etag}
    return document


def _print(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    sizes = [readable(document[name]["size"]) for name in ("old", "new") if name in document]
    print_line(f"{document['change']:<7}  {' -> '.join(sizes):>23}  {printable(document['uri'])}")
