"""``s3torch du``: how much there is below a prefix, of each folder and of each storage class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Annotated

import typer

from s3torchconnector._cli._connection import Connection, connects
from s3torchconnector._cli._endings import nothing_at
from s3torchconnector._cli._location import Location, Prefix
from s3torchconnector._cli._output import Human, Json, print_json, print_line, printable, readable
from s3torchconnector._listing_results import ObjectInfos


@connects
def du(
    prefix: Prefix,
    *,
    depth: Annotated[int, typer.Option(min=0, help="Show also what is in folders, so many levels deep.")] = 0,
    human: Human = False,
    as_json: Json = False,
    connection: Connection,
) -> None:
    """Count objects and bytes below a prefix: all whose keys begin with it.

    Each line has bytes, objects and a prefix; the last line is the total. If there are several storage classes, a line
    for each follows. Exit code 1 if nothing begins with the prefix. All keys are listed, many pages at a time.
    """
    usage = Usage(prefix.key, depth)
    with connection.client() as client:
        for infos in client.list_all(prefix.bucket, prefix.key):
            usage.add(infos)
    if as_json:
        print_json(_document(prefix, usage))
    else:
        _print(prefix, usage, human=human)
    if not usage.total.objects and prefix.key:
        raise nothing_at(prefix)


def _print(prefix: Location, usage: Usage, *, human: bool) -> None:
    rows = [(amount, str(Location(prefix.bucket, folder))) for folder, amount in sorted(usage.folders.items())]
    rows.append((usage.total, str(prefix)))
    if len(usage.classes) > 1:
        rows += [(amount, f"({name})") for name, amount in sorted(usage.classes.items())]
    for amount, name in rows:
        size = readable(amount.size) if human else str(amount.size)
        print_line(f"{size:>16} {amount.objects:>12} {printable(name)}")


class Amount:
    """A number of objects, and their bytes."""

    __slots__ = ("objects", "size")

    def __init__(self) -> None:
        self.objects = self.size = 0

    def add(self, size: int) -> None:
        self.objects += 1
        self.size += size

    def as_json(self) -> dict[str, int]:
        return {"objects": self.objects, "bytes": self.size}


class Usage:
    """Adds up objects. Takes memory for each folder, not for each object.

    Args:
        prefix: what all keys begin with.
        depth: how many levels of folders below it are counted on their own.

    Attributes:
        total: of all.
        folders: of each folder, by the beginning of its keys, which ends in a slash.
        classes: of each storage class; ``STANDARD`` if the server tells none.
    """

    def __init__(self, prefix: str, depth: int) -> None:
        self.total = Amount()
        self.folders: defaultdict[str, Amount] = defaultdict(Amount)
        self.classes: defaultdict[str, Amount] = defaultdict(Amount)
        self._start = prefix.rfind("/") + 1
        self._depth = depth
        self._folder: str | None = None  # of the key before: most keys have the same one
        self._amounts: list[Amount] = []  # that this one counts for

    def add(self, infos: ObjectInfos) -> None:
        """Count the objects of a page."""
        classes: Iterable[str | None] = infos.column("storage_class")
        for key, size, name in zip(infos.keys, infos.sizes, classes, strict=True):
            self.total.add(size)
            self.classes[name or "STANDARD"].add(size)
            if self._depth:
                folder = key[: key.rfind("/") + 1]
                if folder != self._folder:
                    self._folder, self._amounts = folder, [self.folders[each] for each in self._above(folder)]
                for amount in self._amounts:
                    amount.add(size)

    def _above(self, folder: str) -> list[str]:
        """The folder and those that it is in, below the prefix and no deeper than asked for."""
        ends: list[int] = []
        end = folder.find("/", self._start)
        while end >= 0 and len(ends) < self._depth:
            ends.append(end)
            end = folder.find("/", end + 1)
        return [folder[: end + 1] for end in ends]


def _document(prefix: Location, usage: Usage) -> dict[str, object]:
    return {
        "uri": str(prefix),
        **usage.total.as_json(),
        "storage_classes": {name: amount.as_json() for name, amount in sorted(usage.classes.items())},
        "prefixes": [
            {"uri": str(Location(prefix.bucket, folder)), **amount.as_json()}
            for folder, amount in sorted(usage.folders.items())
        ],
    }
