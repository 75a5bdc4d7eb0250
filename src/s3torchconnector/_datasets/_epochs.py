"""Finds the epoch of a pass in every DataLoader worker, without a call from the program.

Some numbers in shared memory pass through fork, spawn and persistent workers. They are a *base* (the epoch and position
at which the program wants to begin) and, for each worker, a slot with the latest epoch that the worker has begun. A
pass takes the base if no worker has begun a pass since the base was set, otherwise the epoch after the latest. Only its
worker writes a slot, in one store, so there is no lock and nothing to wait for.

The workers of one pass must agree, although one of them may have begun it before another. And a worker that was ended
before it began may have missed a pass. So a slot also has a *tag*, which is the same for all workers of one DataLoader
iterator. A worker that finds its own tag in another slot belongs to the same pass.

``S3DataLoader`` knows better, and *assigns* epoch and position to its workers before each pass.
"""

from __future__ import annotations

from typing import NamedTuple

from torch.utils.data import get_worker_info

from s3torchconnector._datasets._order import mix
from s3torchconnector._datasets._worker import MOST_WORKERS, worker_slot
from s3torchconnector._errors import S3ConfigurationError
from s3torchconnector._mapped_bytes import SharedNumbers

LAST_EPOCH = 2**27 - 3

_GENERATION, _EPOCH, _POSITION, _ASSIGNED_EPOCH, _ASSIGNED_POSITION, _SLOTS = range(6)
_TAG_BITS, _EPOCH_BITS = 26, 27
_GENERATIONS = 2**10


class Start(NamedTuple):
    """Where a pass begins."""

    epoch: int
    position: int = 0


class _Slot(NamedTuple):
    """The latest pass that a worker has begun, since the base of ``generation`` was set."""

    generation: int
    tag: int
    epoch: int

    def packed(self) -> int:
        return (self.generation << _TAG_BITS | self.tag) << _EPOCH_BITS | self.epoch + 1

    @classmethod
    def unpacked(cls, number: int) -> _Slot:
        rest, epoch = divmod(number, 2**_EPOCH_BITS)
        generation, tag = divmod(rest, 2**_TAG_BITS)
        return cls(generation, tag, epoch - 1)


class Epochs:
    """The epochs of one dataset, shared by the processes that it is forked or sent to."""

    def __init__(self) -> None:
        self._shared = SharedNumbers.zeros(_SLOTS + 1 + MOST_WORKERS)

    def set(self, start: Start) -> None:
        """Have the next pass begin here, in all workers.

        Raises:
            S3ConfigurationError: no epoch has such a number.
        """
        if not 0 <= start.epoch <= LAST_EPOCH:
            raise S3ConfigurationError(f"an epoch is a number from 0 to {LAST_EPOCH}: epoch={start.epoch}")
        block = self._shared.numbers
        generation = block[_GENERATION]
        block[_GENERATION] = generation + 1  # odd: a process that reads now reads again
        for slot in range(_SLOTS, len(block)):
            block[slot] = 0
        block[_EPOCH], block[_POSITION] = start
        block[_GENERATION] = generation + 2

    def begin(self) -> Start:
        """Begin a pass in this process, a DataLoader's worker or the main process."""
        start = self.upcoming()
        self.mark(start.epoch)
        return start

    def upcoming(self) -> Start:
        """Where ``begin`` would begin a pass now."""
        base, generation = self._base()
        number, tag = _worker()
        slots = self._begun(generation)
        mine = _Slot.unpacked(self._shared.numbers[_SLOTS + number])
        others = [slot.epoch for slot in slots if slot.tag == tag]
        if number and mine.epoch >= 0 and mine[:2] == (generation, tag):
            epoch = mine.epoch + 1  # a persistent worker; or the program seeds PyTorch before each pass
        elif number and others:
            epoch = max(others)
        else:
            epoch = max((slot.epoch + 1 for slot in slots), default=base.epoch)
        return Start(epoch, base.position if epoch == base.epoch else 0)

    def mark(self, epoch: int) -> None:
        """Note that this process has begun an epoch."""
        _, generation = self._base()
        number, tag = _worker()
        self._shared.numbers[_SLOTS + number] = _Slot(generation, tag, min(epoch, LAST_EPOCH)).packed()

    def latest(self) -> Start:
        """Where the latest pass began; before the first one, where that will."""
        base, generation = self._base()
        epoch = max((slot.epoch for slot in self._begun(generation)), default=None)
        return base if epoch is None or epoch == base.epoch else Start(epoch)

    def has_begun(self) -> bool:
        """Whether a pass has begun since ``set``, in any process."""
        return any(self._shared.numbers[_SLOTS:])

    def assign(self, start: Start) -> None:
        """Have the workers of ``S3DataLoader`` begin here."""
        self._shared.numbers[_ASSIGNED_EPOCH], self._shared.numbers[_ASSIGNED_POSITION] = start

    def assigned(self) -> Start:
        """What was assigned last."""
        return Start(self._shared.numbers[_ASSIGNED_EPOCH], self._shared.numbers[_ASSIGNED_POSITION])

    def _base(self) -> tuple[Start, int]:
        """The base, and the number of its generation in a slot."""
        block = self._shared.numbers
        while True:
            before = block[_GENERATION]
            start = Start(block[_EPOCH], block[_POSITION])
            if before % 2 == 0 and before == block[_GENERATION]:
                return start, before // 2 % _GENERATIONS

    def _begun(self, generation: int) -> list[_Slot]:
        """The latest passes of the workers that have begun one since the base was set."""
        slots = (_Slot.unpacked(number) for number in self._shared.numbers[_SLOTS:] if number)
        return [slot for slot in slots if slot.generation == generation]


def _worker() -> tuple[int, int]:
    """The number of this process's slot, and the tag of its iterator's workers."""
    slot, info = worker_slot(), get_worker_info()
    return slot, 0 if info is None else mix(info.seed - info.id & 2**64 - 1) % 2**_TAG_BITS
