"""Verifies what one reader hands out: the checksum of an object is compared before its last bytes are handed out."""

from __future__ import annotations

from s3torchconnector._errors import S3ChecksumError
from s3torchconnector._transfer.engine._ranges import Range, split_on_grid
from s3torchconnector._transfer.engine._runtime import Runtime
from s3torchconnector._transfer.engine._workers import Lane
from s3torchconnector._transfer.reading._block import Block
from s3torchconnector._transfer.reading._block_index import BlockIndex
from s3torchconnector._transfer.reading._compare import ask_in_background, compare, expected_checksum, is_right
from s3torchconnector._transfer.reading._fetch import RangeFetch, direct
from s3torchconnector._transfer.reading._fetch_group import FetchGroup
from s3torchconnector._transfer.reading._integrity import ObjectIntegrity
from s3torchconnector._transfer.reading._ledger import Ledger
from s3torchconnector._transfer.reading._object_version import ObjectVersion

_PARTS_OF_A_LONG_READ = 2  # read or read ahead: by a reader of everything, not one that looks at a beginning


class Verification:
    """What one reader hands out, compared with the checksum of its object."""

    _asked = False
    _own_ledger: Ledger | None = None
    _earlier: Ledger | None = None  # from before the read of the whole object that is under way

    def __init__(self, version: ObjectVersion, runtime: Runtime) -> None:
        self._version = version
        self._runtime = runtime

    @property
    def _ledger(self) -> Ledger:
        """Made when it is needed, by a small object that is read at once never."""
        if self._own_ledger is None:
            self._own_ledger = Ledger()
        return self._own_ledger

    @property
    def _integrity(self) -> ObjectIntegrity | None:
        """None if nothing is verified."""
        integrity = self._version.integrity
        return integrity if integrity is not None and integrity.matters else None

    def ask_if_large(self, lane: Lane, position: int, run: int, ahead: int) -> None:
        """Request the checksum of a large object that may well be read to its end, before its bytes come.

        If there is none, summing them would be wasted work.

        Args:
            position: where the current read begins.
            run: bytes read in order so far, with those of this read.
            ahead: bytes that are read ahead.
        """
        size, part_size = self._version.size, self._runtime.config.part_size
        if size is None:
            size = run if position == 0 else 0  # a large first read from the beginning wants everything
        if not self._asked and size > part_size and run + ahead >= min(size // 2, _PARTS_OF_A_LONG_READ * part_size):
            self.ask_in_background(lane)

    def ask_in_background(self, lane: Lane) -> None:
        self._asked = True
        ask_in_background(self._version, self._runtime.caller, lane)

    # -- what is handed out -------------------------------------------------------------------------------------------

    def begin_read(self, position: int, stop: int) -> None:
        """A read of these bytes begins. One of the whole object is compared by itself: it can be corrected."""
        if self._earlier is not None:  # the last read of the whole object has failed
            self._own_ledger, self._earlier = self._earlier, None
        if position == 0 and stop == self._version.size:
            self._earlier, self._own_ledger = self._own_ledger, None

    def note_block(self, block: Block, start: int, stop: int, data: memoryview | bytes) -> None:
        """The bytes from ``start`` to ``stop`` are handed out; ``data`` is their whole block.

        The checksum of the block counts from now on, even if the block is discarded.
        """
        integrity = self._integrity
        if integrity is None:
            return
        ledger = self._ledger
        if block.ledger is not ledger:
            block.ledger = ledger
            ledger.add(Range(block.start, block.stop), block.sums, data, integrity.sums_of)
        ledger.hand_out(start, stop)

    def hand_out_within(self, block: Block, start: int, stop: int, data: memoryview | bytes, index: BlockIndex) -> None:
        """``note_block`` and ``verify_if_due``, for the smallest of reads.

        Raises:
            S3ChecksumError: see ``verify_read``.
        """
        ledger = block.ledger
        if ledger is not None and ledger is self._own_ledger:  # as nearly always
            ledger.hand_out(start, stop)
        else:
            self.note_block(block, start, stop, data)
        self.verify_if_due(index)

    def note_fetch(self, fetch: RangeFetch, view: memoryview, position: int) -> None:
        """The bytes that were fetched into ``view``, which holds the object from ``position`` on, are handed out."""
        integrity = self._integrity
        if integrity is not None:
            piece = fetch.received
            memory = view[piece.start - position : piece.stop - position]
            self._ledger.add(piece, fetch.take_sums(), memory, integrity.sums_of)
            self._ledger.hand_out(piece.start, piece.stop)

    # -- the comparison -----------------------------------------------------------------------------------------------

    def verify_read(self, position: int, view: memoryview, lane: Lane, index: BlockIndex) -> None:
        """The content of ``view`` is about to be handed out, read from ``position`` on: compare if that is due.

        Raises:
            S3ChecksumError: bytes are wrong, or cannot be verified although the configuration requires it.
        """
        integrity = self._integrity
        if integrity is None or not len(view):
            return
        if position > 0 or len(view) != self._version.size:
            self.verify_if_due(index)
            return
        try:
            self._compare_read(integrity, view, lane, index)
        except S3ChecksumError:
            index.discard_all()
            raise
        finally:
            self._own_ledger = self._earlier = None

    def hand_out_whole(self, block: Block, data: memoryview | bytes, index: BlockIndex) -> None:
        """A block that is the whole object is handed out at once.

        Raises:
            S3ChecksumError: see ``verify_read``.
        """
        integrity, version = self._integrity, self._version
        if integrity is None:
            return
        if self._own_ledger is None and integrity.knows(version.size, version.etag):  # as nearly always
            expected = integrity.expected_checksum(block.stop, version.etag)
            if expected is None or block.sums.of(expected[0]) == expected[1]:
                return
        self.note_block(block, 0, block.stop, data)
        self.verify_if_due(index)

    def verify_if_due(self, index: BlockIndex) -> None:
        """Compare when every byte of the object has come, and again when every byte was handed out.

        The second may never happen: archives have gaps that are never read. And it is not the same: bytes that were
        handed out may have been received more than once.

        Raises:
            S3ChecksumError: see ``verify_read``.
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
        """Compare the whole object, which one read has put into ``view``; fetch it again, once, if it is wrong."""
        expected = expected_checksum(self._version, self._runtime.caller, integrity)
        if expected is None:
            return
        algorithm, crc = expected
        first = self._ledger
        # The bytes are still here to be summed, if they were not, or with another algorithm.
        whole = Range(0, len(view))
        if not is_right(first, expected, len(view)) and (found := algorithm.update(view, 0)) != crc:
            index.discard_all()
            integrity.mismatch(whole, found)  # noted, for the error if the same comes again
            second = self._fetch_all(view, lane)
            if not is_right(second, expected, len(view)) and (found := algorithm.update(view, 0)) != crc:
                raise integrity.mismatch(first.differing(second, algorithm) or whole, found)
        wrong = None if self._earlier is None else self._earlier.differing_from(view, algorithm)
        if wrong is not None:
            raise integrity.mismatch(wrong)

    def _fetch_all(self, view: memoryview, lane: Lane) -> Ledger:
        """Fetch a whole object into ``view``."""
        group: FetchGroup[RangeFetch] = FetchGroup(lane, self._runtime.caller)
        with group:
            for piece in split_on_grid(0, len(view), self._runtime.config.part_size):
                group.submit(direct(self._version, piece, view, 0))
        self._own_ledger = None
        for fetch in group.fetches:
            self.note_fetch(fetch, view, 0)
        return self._ledger
