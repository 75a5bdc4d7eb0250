"""Reads tiles of an object again, to check that the bytes handed out were right.

That is needed if they were summed with an algorithm other than S3's, or handed out again in other ranges. The bytes
that were handed out are gone. If the sums of the bytes that arrive now are the same, so were the bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from s3torchconnector._transfer.engine._ranges import Range
from s3torchconnector._transfer.reading._fetch import RangeFetch
from s3torchconnector._transfer.reading._ledger import Ledger, Sums
from s3torchconnector._transfer.reading._object_version import ObjectVersion
from s3torchconnector._wire import Algorithm, Buffer, Caller

_BUFFER = 1024 * 1024  # bytes received and summed at a time
_MOST = 64 * 1024 * 1024  # bytes of one request

Pieces = dict[Range, list[tuple[Range, Sums]]]


class _Check:
    """Compares the bytes of a range that were handed out with those that arrive now."""

    def __init__(self, piece: Range, sums: Sums, algorithm: Algorithm) -> None:
        self.piece = piece
        self._sums = sums
        self._crcs = dict.fromkeys((*sums.algorithms, algorithm), 0)

    def add(self, data: Buffer) -> None:
        self._crcs = {algorithm: algorithm.update(data, crc) for algorithm, crc in self._crcs.items()}

    def result(self) -> Sums | None:
        """The checksums, with the wanted algorithm among them; None if other bytes were handed out."""
        found = Sums(self._crcs)
        return found if self._sums.agree(found) else None


class _Again:
    """One request, for tiles that follow each other."""

    def __init__(self, tiles: Pieces, algorithm: Algorithm) -> None:
        self._checks = [_Check(piece, sums, algorithm) for pieces in tiles.values() for piece, sums in pieces]
        self._checks.sort(key=lambda check: check.piece)
        self._following = deque(self._checks)
        self._open: list[_Check] = []  # some of their bytes have come, but not all
        self.range = Range(min(tiles).start, max(tiles).stop)
        self._edges = deque(sorted({edge for check in self._checks for edge in (check.piece.start, check.piece.stop)}))
        self._buffer = memoryview(bytearray(min(_BUFFER, self.range.stop - self.range.start)))
        self._filled = self._buffer[:0]
        self._position = self.range.start  # of what is being filled

    def fetch(self, version: ObjectVersion, caller: Caller) -> Iterator[tuple[Range, Sums | None]]:
        RangeFetch(version, self.range.start, self.range.stop, self._next).fetch(caller)
        self._sum()
        return ((check.piece, check.result()) for check in self._checks)

    def _next(self, rest: Range) -> memoryview:
        self._sum()
        self._position = rest.start
        while self._edges[0] <= rest.start:
            self._edges.popleft()
        self._filled = self._buffer[: self._edges[0] - rest.start]
        return self._filled

    def _sum(self) -> None:
        """The memory given last is full."""
        stop = self._position + len(self._filled)
        while self._following and self._following[0].piece.start < stop:
            self._open.append(self._following.popleft())
        for check in self._open:
            check.add(self._filled)
        self._open = [check for check in self._open if check.piece.stop > stop]


def read_again(version: ObjectVersion, caller: Caller, ledger: Ledger, algorithm: Algorithm) -> None:
    """Have every tile of the ledger summed with this algorithm. Sets ``ledger.wrong`` if other bytes came before.

    Raises:
        S3Exception: an error occurred accessing S3.
    """
    confirmed: dict[Range, Sums] = {}
    for tiles in _requests(ledger.doubtful(algorithm)):
        for piece, sums in _Again(tiles, algorithm).fetch(version, caller):
            if sums is None:
                ledger.wrong = piece
            elif piece in tiles:
                confirmed[piece] = sums
    ledger.confirm(confirmed)


def _requests(doubtful: Pieces) -> Iterator[Pieces]:
    """The tiles of each request: neighbours."""
    tiles: Pieces = {}
    for tile, pieces in doubtful.items():
        if tiles and (max(tiles).stop != tile.start or tile.stop - min(tiles).start > _MOST):
            yield tiles
            tiles = {}
        tiles[tile] = pieces
    if tiles:
        yield tiles
