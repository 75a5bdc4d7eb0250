"""``s3torch ls``: what is in a bucket, in the form of ``aws s3 ls``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from s3torchconnector._cli._connection import Connection, connects
from s3torchconnector._cli._endings import nothing_at
from s3torchconnector._cli._location import Location, Prefix
from s3torchconnector._cli._output import Human, Json, iso_time, local_time, print_json, print_line, printable, readable
from s3torchconnector._s3client import S3Client
from s3torchconnector._types import ObjectInfo


@connects
def ls(
    prefix: Prefix,
    *,
    recursive: Annotated[bool, typer.Option("--recursive", help="List what is in folders, too.")] = False,
    human: Human = False,
    summarize: Annotated[bool, typer.Option("--summarize", help="Add the number of objects and of bytes.")] = False,
    as_json: Json = False,
    connection: Connection,
) -> None:
    """List objects: the time of the last change, the size, and the name.

    As "aws s3 ls" does: all whose keys begin with the given one. What has a further "/" in its key is one line, "PRE
    folder/", unless --recursive is given. Exit code 1 if there is none. With --json, one line for each.
    """
    listing = _Listing(prefix, human=human, as_json=as_json)
    with connection.client() as client:
        for entry in _entries(client, prefix, recursive):
            listing.show(entry, 0 if recursive else prefix.key.rfind("/") + 1)
    if summarize:
        listing.show_totals()
    if not listing.found and prefix.key:
        raise nothing_at(prefix)


def _entries(client: S3Client, prefix: Location, recursive: bool) -> Iterator[ObjectInfo | str]:
    """Objects, and folders as strings."""
    if recursive:
        for infos in client.list_all(prefix.bucket, prefix.key):
            yield from infos
        return
    for page in client.list_objects(prefix.bucket, prefix.key, delimiter="/"):
        yield from page.common_prefixes
        yield from page.object_info


class _Listing:
    """Prints entries, and counts them."""

    def __init__(self, prefix: Location, *, human: bool, as_json: bool) -> None:
        self.found = False
        self._bucket = prefix.bucket
        self._human = human
        self._as_json = as_json
        self._objects = self._bytes = 0

    def show(self, entry: ObjectInfo | str, hidden: int) -> None:
        """Print a line, without so many characters of the key."""
        self.found = True
        if isinstance(entry, ObjectInfo):
            self._objects += 1
            self._bytes += entry.size
        if self._as_json:
            print_json(self._document(entry))
        elif isinstance(entry, str):
            print_line(f"{'PRE':>30} {printable(entry[hidden:])}")
        else:
            size, name = self._size(entry.size), printable(entry.key[hidden:])
            print_line(f"{local_time(entry.last_modified)} {size:>10} {name}")

    def show_totals(self) -> None:
        if self._as_json:
            print_json({"objects": self._objects, "bytes": self._bytes})
        else:
            print_line(f"\nTotal Objects: {self._objects}\n   Total Size: {self._size(self._bytes)}")

    def _size(self, size: int) -> str:
        return readable(size) if self._human else str(size)

    def _document(self, entry: ObjectInfo | str) -> dict[str, object]:
        if isinstance(entry, str):
            return {"prefix": str(Location(self._bucket, entry))}
        return {
            "uri": str(Location(self._bucket, entry.key)),
            "size": entry.size,
            "last_modified": iso_time(entry.last_modified),
            "etag": entry.etag,
            "storage_class": entry.storage_class,
        }
