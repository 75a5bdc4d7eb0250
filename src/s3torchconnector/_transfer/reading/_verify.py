"""The moment when all of an object has come: its checksum is compared before its last bytes are handed over."""

from __future__ import annotations

from s3torchconnector._errors import S3ChecksumError
from s3torchconnector._transfer.engine._ranges import Range, split_on_grid
from s3torchconnector._transfer.engine._runtime import Runtime
from s3torchconnector._transfer.engine._workers import Lane
from s3torchconnector._transfer.reading._block import Block
from s3torchconnector._transfer.reading._block_index import BlockIndex
from s3torchconnector._transfer.reading._compare import ask_in_background, compare, demand, is_right
from s3torchconnector._transfer.reading._fetch import RangeFetch, direct
from s3torchconnector._transfer.reading._fetch_group import FetchGroup
from s3torchconnector._transfer.reading._integrity import ObjectIntegrity
from s3torchconnector._transfer.reading._ledger import Ledger
from s3torchconnector._transfer.reading._object_version import ObjectVersion

_IN_EARNEST = 2  # parts, read or fetched ahead: a reader of everything, not one that looks at a beginning


class Verification:
    """What one reader hands out, against the checksum of its object."""

    def __init__(self, version: ObjectVersion, runtime: Runtime) -> None:
        self._version = version
        self._runtime = runtime
        self._asked = False
        self._own_ledger: Ledger | None = None
        self._earlier: Ledger | None = None  # of before the read of all of the object that is under way

    @property
    def _ledger(self) -> Ledger:
        """Made when it is needed, by a small object that is read at once never."""
        if self._own_ledger is None:
            self._own_ledger = Ledger()
        return self._own_ledger

    @property
    def _integrity(self) -> ObjectIntegrity | None:
        """None where nothing is verified."""
        integrity = self._version.integrity
        return integrity if integrity is not None and integrity.matters else None

    def ask_early(self, lane: Lane, position: int, run: int, ahead: int) -> None:
        """``run`` bytes are being read in order, the last from ``position`` on, and ``ahead`` more fetched unasked: ask
        for the checksum of a large object that may well be read to its end, before its bytes come: those would be
        summed in vain if there is none."""
        size, part_size = self._version.size, self._runtime.config.part_size
        if size is None:
            size = run if position == 0 else 0  # a large first read from the beginning is of all
        if not self._asked and size > part_size and run + ahead >= min(size // 2, _IN_EARNEST * part_size):
            self.ask_in_background(lane)

    def ask_in_background(self, lane: Lane) -> None:
        self._asked = True
        ask_in_background(self._version, self._runtime.caller, lane)

    # -- what is handed out -------------------------------------------------------------------------------------------

    def begin(self, position: int, stop: int) -> None:
        """A read of these bytes begins. One of all of the object is compared by itself: it can be put right."""
        if self._earlier is not None:  # the read of all before has failed
            self._own_ledger, self._earlier = self._earlier, None
        if position == 0 and stop == self._version.size:
            self._earlier, self._own_ledger = self._own_ledger, None

    def note_part(self, part: Block, start: int, stop: int, data: memoryview | bytes) -> None:
        """The bytes from ``start`` to ``stop`` become the program's; ``data`` is all of their part.

        The checksum of the part counts from now on, whatever becomes of the part.
        """
        integrity = self._integrity
        if integrity is None:
            return
        ledger = self._ledger
        if part.ledger is not ledger:
            part.ledger = ledger
            ledger.add(Range(part.start, part.stop), part.sums, data, integrity.sums_of)
        ledger.hand_out(start, stop)

    def hand_over_within(self, part: Block, start: int, stop: int, data: memoryview | bytes, index: BlockIndex) -> None:
        """``note_part`` and ``check``, for the smallest of reads.

        Raises:
            S3ChecksumError: see ``hand_over``.
        """
        ledger = part.ledger
        if ledger is not None and ledger is self._own_ledger:  # as nearly always
            ledger.hand_out(start, stop)
        else:
            self.note_part(part, start, stop, data)
        self.check(index)

    def note_requests(self, group: FetchGroup[RangeFetch], view: memoryview, position: int) -> None:
        """``note_request`` for each of these."""
        for fetch in group.fetches:
            self.note_request(fetch, view, position)

    def note_request(self, fetch: RangeFetch, view: memoryview, position: int) -> None:
        """What was fetched into ``view``, which holds the object from ``position`` on, becomes the program's."""
        integrity = self._integrity
        if integrity is not None:
            piece = fetch.received
            memory = view[piece.start - position : piece.stop - position]
            self._ledger.add(piece, fetch.take_sums(), memory, integrity.sums_of)
            self._ledger.hand_out(piece.start, piece.stop)

    # -- the comparison -----------------------------------------------------------------------------------------------

    def hand_over(self, position: int, view: memoryview, lane: Lane, index: BlockIndex) -> None:
        """What is in ``view`` is about to be the program's, and so is all that was read before.

        Raises:
            S3ChecksumError: bytes are wrong, or cannot be verified although they must be.
        """
        integrity = self._integrity
        if integrity is None or not len(view):
            return
        if position > 0 or len(view) != self._version.size:
            self.check(index)
            return
        try:
            self._compare_read(integrity, view, lane, index)
        except S3ChecksumError:
            index.discard_all()
            raise
        finally:
            self._own_ledger = self._earlier = None

    def hand_over_part(self, part: Block, data: memoryview | bytes, index: BlockIndex) -> None:
        """A part that is all of the object becomes the program's, at once.

        Raises:
            S3ChecksumError: see ``hand_over``.
        """
        integrity, version = self._integrity, self._version
        if integrity is None:
            return
        if self._own_ledger is None and integrity.knows(version.size, version.etag):  # as nearly always
            expected = integrity.demand(part.stop, version.etag)
            if expected is None or part.sums.of(expected[0]) == expected[1]:
                return
        self.note_part(part, 0, part.stop, data)
        self.check(index)

    def check(self, index: BlockIndex) -> None:
        """Compare, once every byte of the object has come, and again once every byte was handed out.

        Some may never be: archives have gaps that nobody reads. And what was handed out may have come another time.

        Raises:
            S3ChecksumError: see ``hand_over``.
        """
        ledger, size = self._own_ledger, self._version.size
        if ledger is None or size is None:
            return
        integrity = self._integrity if ledger.is_due(size) else None
        try:
            if integrity is not None:
                compare(self._version, self._runtime.caller, integrity, ledger)
        except S3ChecksumError:
            index.discard_all()  # it may be wrong
            self._own_ledger = None
            raise
        if ledger.is_handed_out(size):
            self._own_ledger = None

    def _compare_read(self, integrity: ObjectIntegrity, view: memoryview, lane: Lane, index: BlockIndex) -> None:
        """Compare all of the object that one read has put into ``view``, and fetch it again once if it is wrong."""
        expected = demand(self._version, self._runtime.caller, integrity)
        if expected is None:
            return
        algorithm, crc = expected
        first = self._ledger
        # Summed otherwise, or not at all, the bytes are still here.
        if not is_right(first, expected, len(view)) and algorithm.update(view, 0) != crc:
            index.discard_all()
            second = self._fetch_all(view, lane)
            if not is_right(second, expected, len(view)) and algorithm.update(view, 0) != crc:
                raise integrity.mismatch(first.differing(second, algorithm) or Range(0, len(view)))
        wrong = None if self._earlier is None else self._earlier.differing_from(view, algorithm)
        if wrong is not None:
            raise integrity.mismatch(wrong)

    def _fetch_all(self, view: memoryview, lane: Lane) -> Ledger:
        """Fetch a whole object into ``view``."""
        with FetchGroup[RangeFetch](lane, self._runtime.caller) as group:
            for piece in split_on_grid(0, len(view), self._runtime.config.part_size):
                group.submit(direct(self._version, piece, view, 0))
        self._own_ledger = None
        self.note_requests(group, view, 0)
        return self._ledger
