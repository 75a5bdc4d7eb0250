"""The objects of a manifest, found by their names while others are listed. Imported late: it uses PyTorch."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

from s3torchconnector._datasets import _manifest_object
from s3torchconnector._datasets._rows import Row, Rows, Samples
from s3torchconnector._datasets._sample_rows import SampleRows
from s3torchconnector._etag import bare
from s3torchconnector._s3client import S3Client

_Name = tuple[str, bytes]


class Difference(NamedTuple):
    """An object that differs; ``old`` or ``new`` is None if it is not there."""

    old: Row | None
    new: Row | None


def fetch(client: S3Client, uri: str) -> Samples:
    """The samples of a manifest.

    Raises:
        S3FormatError: it is no manifest, or a damaged one.
        S3Exception: an error occurred accessing S3.
    """
    return _manifest_object.fetch(client, uri, None)


def objects_of(samples: Samples) -> Rows:
    """The objects that the samples of a manifest are, or lie in."""
    rows = samples.objects if isinstance(samples, SampleRows) else samples
    assert isinstance(rows, Rows)
    return rows


class Pinned:
    """The objects of a manifest by name, and which of them have been found.

    Names that are looked for in their order are found where the last one was. In any other order each takes a binary
    search, so that a server's order matters to the speed alone. Takes a byte for each object, and 8 more if the
    manifest has them in another order than that of their names.

    Attributes:
        missing_count: how many rows have not been found yet.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self._order: array[int] | None = None
        if any(name > following for name, following in pairwise(map(self._name, range(len(rows))))):
            self._order = array("Q", sorted(range(len(rows)), key=self._name))
        self._found = bytearray(len(rows))
        self.missing_count = len(rows)
        self._next = 0

    def find(self, bucket: str, key: str) -> Row | None:
        """The object of this name, which counts as found from now on; None if there is none."""
        name = bucket, key.encode("utf-8", "surrogatepass")
        at = self._place(name)
        row = None
        while at < len(self.rows) and self._name(self._number(at)) == name:  # it may be there more than once
            row = self.rows.row(self._number(at))
            self.missing_count -= not self._found[at]
            self._found[at] = True
            at += 1
        self._next = at
        return row

    def missing(self) -> Iterator[Row]:
        """Those that have not been found, in the order of their names, each once."""
        at, last = self._found.find(0), None
        while at >= 0:
            number = self._number(at)
            name = self._name(number)
            if name != last:
                yield self.rows.row(number)
            at, last = self._found.find(0, at + 1), name

    def _place(self, name: _Name) -> int:
        """Where the first object is whose name is not less."""
        at = self._next
        if (at == 0 or self._name(self._number(at - 1)) < name) and (
            at == len(self.rows) or self._name(self._number(at)) >= name
        ):
            return at
        low, high = 0, len(self.rows)
        while low < high:
            middle = (low + high) // 2
            if self._name(self._number(middle)) < name:
                low = middle + 1
            else:
                high = middle
        return low

    def _number(self, at: int) -> int:
        return at if self._order is None else self._order[at]

    def _name(self, i: int) -> _Name:
        return self.rows.bucket(i), self.rows.name_bytes(i)


def differences(old: Pinned, new: Iterable[Row]) -> Iterator[Difference]:
    """The differences: new and changed objects, in the order of ``new``, then objects that are missing there."""
    for row in new:
        known = old.find(row.bucket, row.key)
        if known is None:
            yield Difference(None, row)
        elif known.size != row.size or bare(known.etag) != bare(row.etag):
            yield Difference(known, row)
    for row in old.missing():
        yield Difference(row, None)
