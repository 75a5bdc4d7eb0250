"""The blocks of one version of an object in one process: how they are requested, waited for and copied from.

A block is in the index before memory is reserved for it, so its reservation is given back after any error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from s3torchconnector._config import KIB, MIB
from s3torchconnector._late_imports import no_fork
from s3torchconnector._transfer.engine._memory import copy
from s3torchconnector._transfer.engine._ranges import Range
from s3torchconnector._transfer.engine._runtime import Runtime
from s3torchconnector._transfer.engine._workers import Lane
from s3torchconnector._transfer.reading._block import LARGE, Block, Destinations, Released
from s3torchconnector._transfer.reading._block_index import BlockIndex
from s3torchconnector._transfer.reading._fetch import RangeFetch, direct
from s3torchconnector._transfer.reading._fetched_block import BlockRequest, FetchedBlock
from s3torchconnector._transfer.reading._object_version import ObjectVersion
from s3torchconnector._transfer.reading._verify import Verification

if TYPE_CHECKING:
    from s3torchconnector._transfer.reading._request_planner import Gap

_MULTIPLEXED = 1 * MIB  # objects up to here are fetched by the multiplexer, many on one thread
_LITTLE = 256 * KIB  # fetched if there is no room for more


class Blocks:
    """An index of blocks, and the threads that fill them."""

    _own_lane: Lane | None = None
    _own_ahead_lane: Lane | None = None

    def __init__(self, runtime: Runtime, version: ObjectVersion, verification: Verification) -> None:
        self.index = BlockIndex(runtime.budget)
        self._verification = verification
        self._runtime = runtime
        self._version = version

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
        """Of streamed ranges, which may wait for memory: nothing that a read waits for is queued after them."""
        if self._own_ahead_lane is None:
            self._own_ahead_lane = self._runtime.lane()
        return self._own_ahead_lane

    # -- requests -----------------------------------------------------------------------------------------------------

    def _fetch(
        self, wanted: Range, *, reserved: int, multiplexed: bool = False, overdraw: bool = False
    ) -> Block | None:
        """Have a block fetched by a separate request; None if there is no memory for ``reserved`` bytes."""
        block = FetchedBlock(self._runtime.budget, wanted)
        try:
            self.index.add(block)
            if not block.reserve(reserved, unread=self.index.lost <= 0, overdraw=overdraw):
                self.index.remove(block)
                return None
            request = BlockRequest(self._runtime, self._version, block)
            if multiplexed:
                self._runtime.multiplex(request)
            else:
                self.lane.submit(request.fetch)
        except BaseException:  # also an interrupt
            self.index.discard_missing()
            raise
        return block

    def prefetch(self, wanted: Range, reserved: int) -> None:
        """Have bytes fetched before any thread waits for them: ``wanted``, or as many of the first as there is memory
        for.

        ``reserved`` is how many there probably are.
        """
        block = self._fetch(wanted, reserved=reserved, multiplexed=reserved <= _MULTIPLEXED)
        if block is None and reserved > _LITTLE:
            start = wanted.start
            self._fetch(Range(start, start + _LITTLE), reserved=_LITTLE, multiplexed=True)

    def fetch_around(self, gap: Gap) -> bool:
        """Have the block fetched that a gap asks for, or a smaller one; False if there is no room for either."""
        wanted, wider = gap
        if wider is None:
            return False
        if self._fetch(wider, reserved=wider.size) is not None:
            return True
        before = max(wider.start, min(wanted.start, wanted.stop - _LITTLE))
        start = before if wider.start < wanted.start else wanted.start
        less = Range(start, min(wider.stop, max(wanted.stop, start + _LITTLE)))
        return wanted.size < less.size < wider.size and self._fetch(less, reserved=less.size) is not None

    def fetch_next(self, wanted: Range) -> None:
        """Have the few bytes fetched that the next read waits for, also if read-ahead has taken the whole budget."""
        self._fetch(wanted, reserved=wanted.size, overdraw=True)

    def read_ahead(self, wanted: Range) -> bool:
        """Have a range streamed into blocks before any thread waits for them; False if there is no memory for that."""
        with no_fork:
            from s3torchconnector._transfer.reading._streamed_range import StreamedRange, reservation

        size, reserved, streamed = reservation(wanted.size), False, None
        try:
            reserved = self._runtime.budget.try_take(size, reserved=True, unread=self.index.lost <= 0)
            if reserved:
                streamed = StreamedRange(self._runtime, self._version, wanted)
                for block in streamed.blocks:
                    self.index.add(block)
                self._ahead_lane.submit(streamed.fetch)
        except BaseException:  # also an interrupt
            if streamed is not None:
                streamed.cancel()
            elif reserved:
                self._runtime.budget.give_back(size, reserved=size)
            self.index.discard_missing()
            raise
        return reserved

    def fetch_tail(self, length: int) -> None:
        """Wait for the object's last bytes, whose response contains its size: ``length`` bytes, or one if there is no
        memory for them.
        """
        block = self._fetch(Range(-length, 0), reserved=length)
        if block is not None:
            self.data_of(block)
        else:
            RangeFetch(self._version, -1, None, lambda got: memoryview(bytearray(got.size))).fetch(self._runtime.caller)

    # -- what has come ------------------------------------------------------------------------------------------------

    def await_heads(self) -> None:
        """Wait until responses for all blocks have begun."""
        for block in self.index:
            block.await_head()
            if block.failed and not block.released:
                self._wait_for(block)

    def _wait_for(self, block: Block) -> memoryview | bytes:
        """A block's bytes. An error discards all that is not here, so that the next read asks again."""
        try:
            return block.data()
        except Released:
            raise
        except BaseException:
            # Requests in flight have the same problem, and must not report it again when it is over.
            self.index.discard_missing()
            raise

    def data_of(self, block: Block) -> memoryview | bytes | None:
        """Wait for a block's bytes; None if others needed the memory."""
        try:
            return self._wait_for(block)
        except Released:
            return None

    def fill(self, read: Range, view: memoryview, after_each: Callable[[], None] | None) -> None:
        """Put the bytes of a read that blocks have into ``view``: received there if that is still possible, otherwise
        copied.

        Complete blocks come first, at any position: the rest arrives meanwhile, in the memory that this frees.

        Args:
            after_each: called after each block if reads are in order. Large blocks that were read to their end are
                discarded before: their memory is needed for what comes next, now and not when the next read begins.
        """
        blocks = self.index.overlapping(*read)
        if all(block.ready for block in blocks):
            self._copy_each(blocks, read, view, after_each)
            return
        with Destinations(self._runtime.budget, blocks, read, view):
            self._copy_each(sorted(blocks, key=lambda block: not block.ready), read, view, after_each)

    def _copy_each(
        self, blocks: list[Block], read: Range, view: memoryview, after_each: Callable[[], None] | None
    ) -> None:
        for block in blocks:
            if self._copy(block, read, view) and after_each is not None:
                is_read = block.stop <= read.stop and not block.received_in_place
                if is_read and block.stop - block.start >= LARGE:
                    self.index.discard(block)
                after_each()

    def _copy(self, block: Block, read: Range, view: memoryview) -> bool:
        """Wait until ``view`` has what a block has of a read; False if others released that: it is fetched again."""
        position = read.start
        try:
            data = self._wait_for(block)
        except Released:
            self.index.discard_retryable()
            fetch = direct(self._version, Range(max(position, block.start), min(read.stop, block.stop)), view, position)
            fetch.fetch(self._runtime.caller)
            self._verification.note_fetch(fetch, view, position)
            return False
        start, stop = max(position, block.start), min(read.stop, block.stop)  # known now that it is here
        place = view[start - position : stop - position]
        if block.received_in_place:
            self._verification.note_block(block, start, stop, place)
            self.index.remove(block)
        elif start < stop:
            self._verification.note_block(block, start, stop, data)
            copy(place, data[start - block.start : stop - block.start])
        return True
