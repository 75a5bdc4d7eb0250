"""The blocks of one object that are complete or being received. No I/O."""

from __future__ import annotations

import math
from bisect import insort

from s3torchconnector._transfer.engine._budget import ByteBudget
from s3torchconnector._transfer.reading._block import Block
from s3torchconnector._transfer.reading._layout import Layout, is_outside, start_of


class BlockIndex(Layout):
    """A reader's blocks; for the budget, the holder of their memory.

    Attributes:
        used: when the reader was last at work, by ``time.monotonic``; infinite while it is.
        expected: where the reader is, and what it is expected to read next: the rest can be fetched again.
        lost: bytes that were released unread since the reader has read so many: it does the same to others only after
            it has read what it lost. Many readers in turn would fetch everything for each other's sake, over and over.
        has_grown: whether blocks were added since ``tidy``.
    """

    used = math.inf
    expected: tuple[int, float] = (0, math.inf)
    lost = 0
    has_grown = False
    _added = 0  # blocks so far

    def __init__(self, budget: ByteBudget) -> None:
        super().__init__([])
        self._budget = budget

    def add(self, block: Block) -> None:
        """Put a block in its place; it must not overlap another."""
        if not self._blocks:
            self._budget.add_holder(self)
        self._added += 1
        block.age, self.has_grown = self._added, True
        insort(self._blocks, block, key=start_of)

    def remove(self, block: Block) -> None:
        """Take out a block that has no memory of ours."""
        self._blocks.remove(block)

    def tidy(self, discard: list[Block], expected: tuple[int, float] | None) -> None:
        """Apply a ``ReadPlan`` to the existing blocks."""
        if expected is not None:
            self.expected, self.has_grown = expected, False
        if discard:
            self._discard(discard)

    def discard(self, block: Block) -> None:
        """Discard a block whose bytes are not wanted any more."""
        self._discard([block])

    def discard_retryable(self) -> None:
        """Discard the blocks that will not come, but may if they are asked for again."""
        self._discard(self.retryable())

    def discard_missing(self) -> None:
        """Discard the blocks whose bytes are not here: failed, under way, or in the memory of a read."""
        self._discard([block for block in self._blocks if not block.ready or block.received_in_place])

    def discard_all(self) -> None:
        """Discard everything."""
        if self._blocks:
            self._budget.remove_holder(self)
            self._discard(list(self._blocks))

    def release_memory(self, *, unread: bool) -> None:
        """Free memory that others need; see ``MemoryHolder``. The blocks stay here, and can be retried."""
        for block in list(self._blocks):
            if unread:
                self.lost += block.stop - block.start if not block.can_be_retried else 0
                block.cancel_and_release()
            elif is_outside(block, self.expected):
                if block.ready:
                    block.release_memory()
                else:
                    block.cancel_and_release()

    def _discard(self, blocks: list[Block]) -> None:
        for block in blocks:
            self._blocks.remove(block)
        for block in blocks:
            block.discard()
