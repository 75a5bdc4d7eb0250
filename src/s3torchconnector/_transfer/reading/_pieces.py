"""Chosen pieces of one object, received straight into many places, with few and large requests.

Pieces that lie close together are requested as one range. Its bytes are received directly into the memory of the
pieces, and bytes of the gaps between them are discarded. Nothing is copied or buffered, so no other memory is used. The
first request reads the object's beginning, where formats keep their directory, and pins its version; every other
request must match that version.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from s3torchconnector._progress import Progress
from s3torchconnector._transfer.engine._memory import copy
from s3torchconnector._transfer.engine._ranges import Range
from s3torchconnector._transfer.engine._runtime import Runtime
from s3torchconnector._transfer.reading._compare import Loaded, prepare_verification
from s3torchconnector._transfer.reading._counted_object import CountedVersion
from s3torchconnector._transfer.reading._discard import discarded
from s3torchconnector._transfer.reading._fetch import RangeFetch
from s3torchconnector._transfer.reading._fetch_group import FetchGroup
from s3torchconnector._uri import display_uri


class Piece(NamedTuple):
    """Bytes of an object from ``start`` on, and where they go: as many as ``view`` has."""

    start: int
    view: memoryview

    @property
    def stop(self) -> int:
        return self.start + len(self.view)


def places(pieces: Sequence[Piece], starts: Sequence[int], received: Range) -> Iterator[memoryview]:
    """Where the bytes of one range go, in order: into ``pieces``, which begin at ``starts``, or nowhere between."""
    position = received.start
    following = max(0, bisect_right(starts, position) - 1)
    while position < received.stop:
        piece = pieces[following] if following < len(pieces) else None
        if piece is None or position < piece.start:
            stop = received.stop if piece is None else min(piece.start, received.stop)
            yield from discarded(stop - position)
            position = stop
        else:
            view = piece.view[position - piece.start : received.stop - piece.start]
            following += 1
            if len(view):
                yield view
            position += len(view)


def plan(pieces: Iterable[Piece], max_gap: int, most: int) -> Iterator[Range]:
    """The ranges to request: pieces no more than ``max_gap`` bytes apart together, cut evenly to ``most`` bytes.

    ``pieces`` are in order, disjoint, and not empty.
    """
    for span in _spans(pieces, max_gap):
        count = math.ceil(span.size / most)
        edges = [span.start + span.size * i // count for i in range(count + 1)]
        yield from map(Range, edges, edges[1:])


def _spans(pieces: Iterable[Piece], max_gap: int) -> Iterator[Range]:
    span: Range | None = None
    for piece in pieces:
        if span is not None and piece.start - span.stop <= max_gap:
            span = Range(span.start, piece.stop)
        else:
            if span is not None:
                yield span
            span = Range(piece.start, piece.stop)
    if span is not None:
        yield span


class PiecesReader:
    """One version of one object, by pieces.

    Args:
        runtime: the process's connections and threads.
        max_gap: bytes between two pieces that cost less than a request of their own.
        version_id: the version, by default the latest.

    Attributes:
        progress: of the reads.
    """

    def __init__(self, runtime: Runtime, bucket: str, key: str, *, max_gap: int, version_id: str | None = None) -> None:
        self._runtime = runtime
        self.progress = Progress(runtime.config.progress, f"loading {display_uri(bucket, key)}")
        self._version = CountedVersion(bucket, key, self.progress, version_id)
        self._max_gap = max_gap
        self._head = memoryview(b"")
        self._loaded = Loaded(self._version)

    @property
    def size(self) -> int:
        """The object's size in bytes, known once its head was read."""
        assert self._version.size is not None, "read_head comes first"
        return self._version.size

    def read_head(self, count: int) -> memoryview:
        """The object's first ``count`` bytes, or all there are; kept, so that no piece fetches them again.

        Raises:
            S3Exception: an error occurred accessing S3.
        """
        if self._version.size is None:
            fetch = RangeFetch(self._version, 0, count, self._new_head)
            fetch.fetch(self._runtime.caller)
            self._loaded.add(fetch)
        elif count > len(self._head):
            longer = memoryview(bytearray(min(count, self.size)))
            self.read([Piece(0, longer)])
            self._head = longer
        return self._head[:count]

    def _new_head(self, got: Range) -> memoryview:
        self._head = memoryview(bytearray(got.size))
        return self._head

    def prepare_verification(self, *, whole: bool) -> None:
        """Say whether all of the object is going to be read, by however many calls of ``read``, or only some of it."""
        if not whole or self.size > self._runtime.config.part_size:
            prepare_verification(self._version, self._runtime, whole=whole)

    def read(self, pieces: Iterable[Piece]) -> None:
        """Fill the pieces, which must be disjoint and inside the object, many ranges at a time.

        Raises:
            S3Exception: an error occurred accessing S3; the content of the pieces is then undefined.
        """
        missing = [rest for piece in pieces if len((rest := self._from_head(piece)).view)]
        missing.sort(key=lambda piece: piece.start)
        starts = [piece.start for piece in missing]
        ranges = list(plan(missing, self._max_gap, self._runtime.config.part_size))
        group: FetchGroup[RangeFetch] = FetchGroup(self._runtime.lane(), self._runtime.caller)
        with group:
            for wanted in ranges:
                fetch = RangeFetch(
                    self._version, wanted.start, wanted.stop, partial(_next_of, places(missing, starts, wanted))
                )
                if wanted is ranges[-1]:
                    group.fetch_here(fetch)
                else:
                    group.submit(fetch)
        for fetch in group.fetches:
            self._loaded.add(fetch)
        self._loaded.verify(self._runtime.caller)

    def _from_head(self, piece: Piece) -> Piece:
        """Fill the beginning of a piece with what is here already, and return the rest."""
        here = self._head[piece.start : piece.stop]
        if len(here):
            copy(piece.view[: len(here)], here)
        return Piece(piece.start + len(here), piece.view[len(here) :])


def _next_of(views: Iterator[memoryview], _: Range) -> memoryview:
    return next(views)
