"""Which bytes of an object were handed out, and their checksums, to be compared with S3's. Pure.

The checksum of the whole is combined from those of *tiles*, which are disjoint. A checksum cannot be split, so bytes
that are handed out again, by another request, are cut where tiles begin and end, and compared with them. If they lie
inside a tile they are a *copy*: only reading the tile again shows whether both were the same.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable

from s3torchconnector._transfer.engine._ranges import Range
from s3torchconnector._transfer.reading._spans import Spans
from s3torchconnector._wire import Algorithm, Buffer

# A reader of small ranges at random would collect them forever. Each of these limits allows 1 MiB.
_MOST_PIECES = 2_000
_MOST_SPANS = 65_536


class Sums:
    """The checksums of some bytes, by one or more algorithms; or the bytes, if they are to be summed later.

    Neither, if they were not summed: there was nothing to compare with.
    """

    __slots__ = ("_crcs", "_kept")

    def __init__(self, crcs: dict[Algorithm, int], kept: bytes | None = None) -> None:
        self._crcs = crcs
        self._kept = kept

    def of(self, algorithm: Algorithm) -> int | None:
        """The checksum by this algorithm; None if it is not known."""
        crc = self._crcs.get(algorithm)
        if crc is None and self._kept is not None:
            crc = self._crcs[algorithm] = algorithm.update(self._kept, 0)
        return crc

    @property
    def are_known(self) -> bool:
        """Whether there is anything to compare with."""
        return bool(self._crcs) or self._kept is not None

    @property
    def algorithms(self) -> tuple[Algorithm, ...]:
        """What the bytes were summed with."""
        return tuple(self._crcs)

    def agree(self, other: Sums) -> bool | None:
        """Whether both are of the same bytes; None if that is unknown."""
        if self._kept is not None and other._kept is not None:
            return self._kept == other._kept
        for algorithm in (*self._crcs, *other._crcs):
            one, two = self.of(algorithm), other.of(algorithm)
            if one is not None and two is not None:
                return one == two
        return None

    def followed_by(self, other: Sums, size: int) -> Sums | None:
        """Those of these bytes followed by ``size`` others; None if no algorithm is known of both."""
        shared = [algorithm for algorithm in self._crcs if other.of(algorithm) is not None]
        crcs = {each: each.combine(self._crcs[each], other.of(each) or 0, size) for each in shared}
        return Sums(crcs) if crcs else None


NOT_SUMMED = Sums({})
Summing = Callable[[Buffer], Sums]


class Ledger:
    """What has come, and what of it was handed out, since everything handed out was last compared.

    Attributes:
        wrong: bytes that came twice and differed.
        overflowed: there were too many pieces; their checksums are not known any more.
    """

    def __init__(self) -> None:
        self.wrong: Range | None = None
        self.overflowed = False
        self._came = Spans()
        self._handed_out = Spans()
        self._spans_fit = True
        self._counted = 0  # bytes handed out, as often as they were
        self._pieces = 0  # added so far
        self._compared = 0  # of these, when it was last compared
        self._tiles: dict[Range, Sums] = {}
        self._order: list[Range] = []
        self._copies: dict[Range, list[Sums]] = {}

    def hand_out(self, start: int, stop: int) -> None:
        """These bytes, which have come, are handed out."""
        self._counted += stop - start
        if self._spans_fit:
            self._handed_out.add(start, stop)
            if len(self._handed_out) > _MOST_SPANS:
                self._spans_fit, self._handed_out = False, Spans()
                self._overflow()

    def is_handed_out(self, size: int) -> bool:
        """Whether all of the object was handed out; after too many ranges, whether it may have been."""
        return (self._handed_out.total if self._spans_fit else self._counted) >= size

    def is_due(self, size: int) -> bool:
        """Whether to compare: something is wrong, all has come for the first time, or all was handed out."""
        if self._compared == self._pieces:
            return False
        all_came = self._came.total == size and not self._compared
        return all_came or self.wrong is not None or self.is_handed_out(size)

    def note_compared(self) -> None:
        """What has come so far is right, or cannot be compared."""
        self._compared = self._pieces

    def add(self, piece: Range, sums: Sums, memory: Buffer | None, summing: Summing) -> None:
        """These bytes have come, and are about to be handed out, at least some of them.

        Args:
            memory: where they are, to sum some of them separately if need be; None if they are gone.
        """
        if piece.stop <= piece.start:
            return
        self._pieces += 1
        if self.overflowed:
            return
        tiles = self._overlapping(piece)
        if not tiles:
            self._put(piece, sums)
        elif tiles == [piece]:
            self._compare(piece, sums)
        elif memory is None:
            self._overflow()
        else:
            inside = {edge for tile in tiles for edge in tile if piece.start < edge < piece.stop}
            edges = [piece.start, *sorted(inside), piece.stop]
            view = memoryview(memory)
            for each in map(Range, edges, edges[1:]):
                its = sums if each == piece else summing(view[each.start - piece.start : each.stop - piece.start])
                self._add_cut(each, its)
        if len(self._order) + len(self._copies) > _MOST_PIECES:
            self._join()

    def _add_cut(self, piece: Range, sums: Sums) -> None:
        """A piece that no tile begins or ends in."""
        tiles = self._overlapping(piece)
        if not tiles:
            self._put(piece, sums)
        elif tiles == [piece]:
            self._compare(piece, sums)
        else:
            self._copy(piece, sums)

    def _overlapping(self, piece: Range) -> list[Range]:
        first = bisect_right(self._order, piece.start, key=_stop)
        return self._order[first : bisect_left(self._order, piece.stop, key=_start)]

    def _put(self, piece: Range, sums: Sums) -> None:
        insort(self._order, piece)
        self._tiles[piece] = sums
        self._came.add(piece.start, piece.stop)

    def _compare(self, tile: Range, sums: Sums) -> None:
        agree = self._tiles[tile].agree(sums)
        if agree is None:
            self._copy(tile, sums)
        elif not agree:
            self.wrong = tile

    def _copy(self, piece: Range, sums: Sums) -> None:
        copies = self._copies.setdefault(piece, [])
        known = [copy.agree(sums) for copy in copies]
        if False in known:
            self.wrong = piece
        if True not in known:
            copies.append(sums)

    def _join(self) -> None:
        """Have fewer pieces: neighbours become one. If that does not help, nothing is known any more."""
        joined: list[Range] = []
        for tile in self._order:
            before = joined[-1] if joined else tile
            both = None
            if before.stop == tile.start:
                both = self._tiles[before].followed_by(self._tiles[tile], tile.stop - tile.start)
            if both is None:
                joined.append(tile)
            else:
                del self._tiles[before], self._tiles[tile]
                joined[-1] = Range(before.start, tile.stop)
                self._tiles[joined[-1]] = both
        self._order = joined
        if len(joined) + len(self._copies) > _MOST_PIECES // 2:
            self._overflow()

    def _overflow(self) -> None:
        self.overflowed = True
        self._tiles, self._order, self._copies = {}, [], {}
        self._came = Spans()

    # -- the comparison ---------------------------------------------------------------------------------------------

    def combined(self, algorithm: Algorithm, size: int) -> int | None:
        """The checksum of an object of this size; None if tiles are missing, or not summed with this algorithm."""
        if self._came.total != size or self.overflowed:
            return None
        crc = 0
        for tile in self._order:
            its = self._tiles[tile].of(algorithm)
            if its is None:
                return None
            # Nothing comes before the first, and the first combination of each length costs 0.3 ms.
            crc = algorithm.combine(crc, its, tile.stop - tile.start) if tile.start else its
        return crc

    @property
    def is_summed(self) -> bool:
        """Whether something is known of all that has come."""
        copies = (sums for found in self._copies.values() for sums in found)
        return not self.overflowed and all(sums.are_known for sums in (*self._tiles.values(), *copies))

    def doubtful(self, algorithm: Algorithm) -> dict[Range, list[tuple[Range, Sums]]]:
        """The tiles that must be read again: not summed with this algorithm, or handed out again, cut in another way.

        Each with what to compare it with: the pieces of it that were handed out, once for each time they differed.
        """
        copies = sorted(self._copies)
        found = {}
        number = 0
        for tile in self._order:
            pieces = [(tile, self._tiles[tile])]
            while number < len(copies) and copies[number].stop <= tile.stop:
                pieces += [(copies[number], sums) for sums in self._copies[copies[number]]]
                number += 1
            if len(pieces) > 1 or self._tiles[tile].of(algorithm) is None:
                found[tile] = pieces
        return found

    def differing(self, other: Ledger, algorithm: Algorithm) -> Range | None:
        """From the first to the last tile that the other has with another checksum; None if there is none."""
        tiles = [tile for tile in self._order if tile in other._tiles]
        wrong = [tile for tile in tiles if self._tiles[tile].of(algorithm) != other._tiles[tile].of(algorithm)]
        return Range(wrong[0].start, wrong[-1].stop) if wrong else None

    def differing_from(self, data: memoryview, algorithm: Algorithm) -> Range | None:
        """A piece that differs from ``data``, which is the whole object; None if there is none."""
        pieces = [*self._tiles.items(), *((piece, sums) for piece, copies in self._copies.items() for sums in copies)]
        for piece, sums in pieces:
            known = (sums.algorithms or (algorithm,))[0]
            crc = sums.of(known)
            if crc is not None and known.update(data[piece.start : piece.stop], 0) != crc:
                return piece
        return self.wrong

    def confirm(self, tiles: dict[Range, Sums]) -> None:
        """The doubtful tiles were read again, and are the same as before."""
        self._tiles.update(tiles)
        self._copies = {}


def _start(piece: Range) -> int:
    return piece.start


def _stop(piece: Range) -> int:
    return piece.stop
