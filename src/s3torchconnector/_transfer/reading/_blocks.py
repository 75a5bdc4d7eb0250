"""The parts of one version of an object in one process: how they are asked for, waited for and handed out.

Whatever goes wrong on the way, what was taken of the budget for a part is given back: it is on the shelf before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from s3torchconnector._config import KIB, MIB
from s3torchconnector._transfer.engine._budget import BUFFER_SIZE
from s3torchconnector._transfer.engine._memory import copy
from s3torchconnector._transfer.engine._ranges import Range
from s3torchconnector._transfer.engine._runtime import Runtime
from s3torchconnector._transfer.engine._workers import Lane
from s3torchconnector._transfer.reading._block import Block, Destinations, GivenUp
from s3torchconnector._transfer.reading._block_index import BlockIndex
from s3torchconnector._transfer.reading._fetch import RangeFetch, direct
from s3torchconnector._transfer.reading._fetched_block import FetchedBlock
from s3torchconnector._transfer.reading._object_version import ObjectVersion
from s3torchconnector._transfer.reading._streamed_range import StreamedRange, deposit
from s3torchconnector._transfer.reading._verify import Verification

LARGE = BUFFER_SIZE // 2 + 1
"""Bytes of a part from which on it is not kept for reads that go back a little."""
_SMALL = 1 * MIB  # objects up to here are fetched by the carrier, many on one thread
_LITTLE = 256 * KIB  # fetched where there is no room for more


class Blocks:
    """A shelf, and the threads that fill it. ``inherited`` are the parts of a parent process that are here."""

    def __init__(
        self, runtime: Runtime, version: ObjectVersion, verification: Verification, inherited: Iterable[Block] = ()
    ) -> None:
        self.index = BlockIndex(runtime.budget)
        self._verification = verification
        self._runtime = runtime
        self._version = version
        self._own_lane: Lane | None = None
        self._own_ahead_lane: Lane | None = None
        for part in inherited:
            self.index.add(part)

    # Made when they are needed, by a small object never. Not by ``cached_property``, whose lock (before Python 3.12)
    # another thread may hold while this process is forked.

    @property
    def lane(self) -> Lane:
        """Of what a read waits for."""
        if self._own_lane is None:
            self._own_lane = self._runtime.lane()
        return self._own_lane

    @property
    def _ahead_lane(self) -> Lane:
        """Of trains, which may wait for memory: nothing that a read waits for stands behind them."""
        if self._own_ahead_lane is None:
            self._own_ahead_lane = self._runtime.lane()
        return self._own_ahead_lane

    def fetch(self, wanted: Range, *, reserved: int, carried: bool = False) -> Block | None:
        """Have a part fetched, by a thread of its own or by the carrier; ``reserved`` bytes are taken for it.

        None where there is no room for them.
        """
        part = FetchedBlock(self._runtime, self._version, wanted)
        try:
            self.index.add(part)
            if not part.reserve(reserved, unread=self.index.lost <= 0):
                self.index.remove(part)
                return None
            if carried:
                self._runtime.multiplexer.submit(part)
            else:
                self.lane.submit(part.fetch)
        except BaseException:  # also an interrupt
            self.index.discard_missing()
            raise
        return part

    def fetch_beginning(self, size: int, reserved: int) -> None:
        """Have the object's first bytes fetched that nobody waits for yet: ``size`` of them, or as many as fit."""
        part = self.fetch(Range(0, size), reserved=reserved, carried=reserved <= _SMALL)
        if part is None and reserved > _LITTLE:
            self.fetch(Range(0, _LITTLE), reserved=_LITTLE, carried=True)

    def fetch_around(self, piece: Range, wanted: Range) -> bool:
        """Have a part fetched that has ``piece`` and more, or a little more; False where there is room for neither."""
        if self.fetch(wanted, reserved=wanted.size) is not None:
            return True
        start = max(wanted.start, min(piece.start, piece.stop - _LITTLE)) if wanted.start < piece.start else piece.start
        less = Range(start, min(wanted.stop, max(piece.stop, start + _LITTLE)))
        return piece.size < less.size < wanted.size and self.fetch(less, reserved=less.size) is not None

    def fetch_ahead(self, wanted: Range) -> bool:
        """Have parts fetched that nobody waits for, by one request; False where there is no room for that."""
        size, taken, train = deposit(wanted.size), False, None
        try:
            taken = self._runtime.budget.try_take(size, to_come=True, unread=self.index.lost <= 0)
            if taken:
                train = StreamedRange(self._runtime, self._version, wanted)
                for part in train.parts:
                    self.index.add(part)
                self._ahead_lane.submit(train.fetch)
        except BaseException:  # also an interrupt
            if train is not None:
                train.call_off()
            elif taken:
                self._runtime.budget.give(size, to_come=size)
            self.index.discard_missing()
            raise
        return taken

    def fetch_tail(self, length: int) -> None:
        """Wait for the object's last bytes, which tell its size: ``length``, or one where there is no room for them."""
        part = self.fetch(Range(-length, 0), reserved=length)
        if part is not None:
            self.data_of(part)
        else:
            RangeFetch(self._version, -1, None, lambda got: memoryview(bytearray(got.size))).fetch(self._runtime.caller)

    def await_heads(self) -> None:
        """Wait until answers for all parts have begun."""
        for part in self.index:
            part.await_head()
            if part.failed and not part.given_up:
                self.wait_for(part)

    def wait_for(self, part: Block) -> memoryview | bytes:
        """A part's bytes. After an error all is forgotten that is not here, so that the next read asks again."""
        try:
            return part.data()
        except GivenUp:
            raise
        except BaseException:
            # What is under way meets the same trouble, and must not bring it up again when that is over.
            self.index.discard_missing()
            raise

    def data_of(self, part: Block) -> memoryview | bytes | None:
        """``wait_for``; None where others needed the memory."""
        try:
            return self.wait_for(part)
        except GivenUp:
            return None

    def take(self, position: int, stop: int, view: memoryview, after_each: Callable[[], None] | None) -> None:
        """Have the bytes of parts in ``view``: received into it, where that is not too late, or else copied.

        What is here comes first, whatever its place: the others arrive meanwhile, in the memory that it makes free.

        Args:
            after_each: called for each part, where reads are in order: then those that were read to their end are
                let go of, since their memory is worth more for what comes next, now and not when the next read begins.
        """
        parts = self.index.overlapping(position, stop)
        with Destinations(self._runtime.budget, parts, Range(position, stop), view):
            for part in sorted(parts, key=lambda part: not part.ready):
                try:
                    data = self.wait_for(part)
                except GivenUp:
                    self.index.discard_lapsed()
                    missing = Range(max(position, part.start), min(stop, part.stop))
                    fetch = direct(self._version, missing, view, position)
                    fetch.fetch(self._runtime.caller)
                    self._verification.note_request(fetch, view, position)
                    continue
                begin, end = max(position, part.start), min(stop, part.stop)  # known now that it is here
                if part.elsewhere:
                    self._verification.note_part(part, begin, end, view[begin - position : end - position])
                    self.index.remove(part)
                elif begin < end:
                    self._verification.note_part(part, begin, end, data)
                    copy(view[begin - position : end - position], data[begin - part.start : end - part.start])
                if after_each is not None:
                    if not part.elsewhere and end == part.stop and end - part.start >= LARGE:
                        self.index.discard(part)
                    after_each()
