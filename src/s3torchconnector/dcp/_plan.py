"""The stored items that a load wants, as requests of about one part, and each request as steps. Pure.

Items that are close to each other share a request; the bytes between them are received and discarded. Items much larger
than a part are split. The first bytes of a large item (``HEAD``) describe the layout of the rest. So a request that
begins inside an item waits for these bytes, and no request ends inside them. An item that is split begins its own
request: if its first bytes waited for an earlier item, requests would wait for one another, one round trip each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from s3torchconnector._config import KIB
from s3torchconnector._transfer import Range

HEAD = 4 * KIB
"""Bytes at the start of a large item. They are received first, and describe where the rest goes."""
SMALL = 64 * KIB
"""Items and gaps of up to this number of bytes are received together with their neighbours."""
_MAX_WASTE = 0.1  # bytes fetched in gaps larger than SMALL, relative to the bytes wanted


class Piece(NamedTuple):
    """Bytes ``start`` up to ``stop`` of a file, all of one item."""

    item: int
    start: int
    stop: int


@dataclass(frozen=True)
class Request:
    """Bytes ``start`` up to ``stop`` of a file, and the items that they belong to, in order."""

    pieces: tuple[Piece, ...]

    @property
    def start(self) -> int:
        """The first byte's position in the file."""
        return self.pieces[0].start

    @property
    def stop(self) -> int:
        """The position after the last byte."""
        return self.pieces[-1].stop


@dataclass(frozen=True)
class Gather:
    """Receive ``start`` up to ``stop`` into one buffer: whole small items, and the head of at most one large one."""

    start: int
    stop: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Rest:
    """Receive more of a large item, whose head is known."""

    piece: Piece


@dataclass(frozen=True)
class Discard:
    """Receive ``count`` bytes, and discard them."""

    count: int


Step = Gather | Rest | Discard


def fetched_gaps(items: Sequence[Range], max_gap: int | None) -> list[bool]:
    """For each item but the last, whether the gap after it is fetched too.

    Args:
        items: in the order of their position.
        max_gap: the largest gap to fetch, in bytes. None fetches small gaps, and the smallest of the larger ones, as
            long as these add up to no more than a tenth of the bytes wanted.
    """
    gaps = [after.start - before.stop for before, after in pairwise(items)]
    if max_gap is not None:
        return [0 <= gap <= max_gap for gap in gaps]
    left = _MAX_WASTE * sum(item.size for item in items)
    found = [0 <= gap <= SMALL for gap in gaps]
    for gap, place in sorted((gap, place) for place, gap in enumerate(gaps) if gap > SMALL):
        left -= gap
        if left < 0:
            break
        found[place] = True
    return found


def requests_for(items: Sequence[Range], part_size: int, max_gap: int | None = None) -> Iterator[Request]:
    """The requests for all items of a file, in the order of their position. No item may be empty.

    A request is at most half as long again as ``part_size``.
    """
    most = part_size + part_size // 2
    pieces: list[Piece] = []
    joined = [False, *fetched_gaps(items, max_gap)]
    for number, (start, stop) in enumerate(items):
        if pieces and (not joined[number] or stop - pieces[0].start > (part_size if is_large(items[number]) else most)):
            yield Request(tuple(pieces))
            pieces = []
        count = 1 if stop - start <= most else math.ceil((stop - start) / part_size)
        edges = [start + (stop - start) * cut // count for cut in range(count + 1)]
        for cut in pairwise(edges):
            if pieces and count > 1:
                yield Request(tuple(pieces))
                pieces = []
            pieces.append(Piece(number, *cut))
    if pieces:
        yield Request(tuple(pieces))


def steps_of(request: Request, items: Sequence[Range]) -> Iterator[Step]:
    """What to do with the bytes of a request, in their order."""
    position = begin = request.start
    gathered: list[Piece] = []
    for piece in request.pieces:
        continues = piece.start > items[piece.item].start
        gap = piece.start - position
        if gathered and gap > SMALL:
            yield Gather(begin, position, tuple(gathered))
            gathered = []
        if not gathered:
            if gap:
                yield Discard(gap)
            begin = piece.start
        position = piece.stop
        if continues:
            yield Rest(piece)
            continue
        gathered.append(piece)
        if is_large(items[piece.item]):
            head = piece.start + HEAD
            yield Gather(begin, head, tuple(gathered))
            gathered = []
            yield Rest(Piece(piece.item, head, piece.stop))
    if gathered:
        yield Gather(begin, position, tuple(gathered))


def is_large(item: Range) -> bool:
    """Whether an item is received on its own, after its head."""
    return item.size > SMALL
