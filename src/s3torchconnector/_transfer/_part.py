"""A piece of an object in memory of ours, or on its way there."""

from __future__ import annotations

from s3torchconnector._transfer._budget import ByteBudget
from s3torchconnector._transfer._landing import Landing
from s3torchconnector._transfer._memory import LargeBuffer
from s3torchconnector._transfer._ranges import Range


class Part:
    """Bytes ``start`` up to ``stop`` of an object, within the budget. Who fetches them is told by subclass or owner.

    ``reserved`` bytes of the budget have been taken for it; ``discard`` or ``hand_over`` gives them back, whatever
    comes first, once. Until the bytes are there ``stop`` is a wish; a negative ``start`` (with any ``stop``) wishes
    for the object's last bytes.
    """

    def __init__(self, budget: ByteBudget, wanted: Range, reserved: int) -> None:
        self.start, self.stop = wanted
        self.landed = False  # whether the bytes are there; asked without a lock, also by a forked child
        self._budget = budget
        self._reserved = reserved
        self._landing = Landing()
        self._block: LargeBuffer | None = None  # to be used again
        self._data: memoryview | bytes = b""

    def inherited(self, budget: ByteBudget) -> Part:
        """A landed part of the parent's as a forked child's own: the same bytes, and none of the parent's locks."""
        part = Part(budget, Range(self.start, self.stop), reserved=0)
        part._data = self._data
        part.landed = True
        part._landing.settle()
        return part

    def data(self) -> memoryview | bytes:
        """The bytes, once they are there.

        Raises:
            S3Exception: they could not be fetched.
        """
        if not self.landed:
            self._hasten()
            self._landing.wait()
        return self._data

    def _hasten(self) -> None:
        """A reader waits for this part."""

    def hand_over(self) -> None:
        """Give the budget its bytes back; the memory lives on as long as its reader, on the program's account."""
        reserved, self._reserved = self._reserved, 0
        self._budget.give(reserved)

    def hand_over_when_landed(self) -> None:
        """``hand_over``, once no more memory will be taken for this part."""
        self._landing.when_settled(self.hand_over)

    def discard(self) -> None:
        """The bytes are not wanted any more: let go of the memory, as soon as nobody receives into it."""
        self._landing.when_settled(self._release)

    def _release(self) -> None:
        self._data = b""
        block, self._block = self._block, None
        if block is not None:
            self._budget.recycle(block)
        self.hand_over()
