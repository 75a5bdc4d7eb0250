"""The objects that are read and saved: their bytes follow from their key, so that none have to be kept."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from s3torchconnector._config import KIB, MIB
from tests.reading.support import content

LARGEST_READ = 16 * MIB
LARGEST_SAVE = 64 * MIB
_PIECE = 4 * MIB
_SHIFTS = 1_000_000
_OBJECTS = 24
_TENSOR_BYTES = (4 * KIB, 300 * KIB, 6 * MIB)


@dataclass(frozen=True)
class Stored:
    """An object, and its position in the endless pattern of ``content``."""

    key: str
    size: int
    shift: int

    def bytes(self, start: int, stop: int) -> bytes:
        return content(self.shift + start, self.shift + min(stop, self.size))

    def pieces(self) -> Iterator[bytes]:
        """All of it, in order."""
        return (self.bytes(start, start + _PIECE) for start in range(0, self.size, _PIECE))


def any_size(dice: random.Random, largest: int) -> int:
    """1 KiB to ``largest``, every order of magnitude as likely as any other."""
    return round(KIB * (largest / KIB) ** dice.random())


def drawn(key: str, largest: int, dice: random.Random) -> Stored:
    return Stored(key, any_size(dice, largest), dice.randrange(_SHIFTS))


class Corpus:
    """The objects to be read, stored in a bucket's folder before the first request."""

    def __init__(self, folder: Path) -> None:
        dice = random.Random(24)
        self.objects = [drawn(f"object-{number}", LARGEST_READ, dice) for number in range(_OBJECTS - 2)]
        self.objects += [Stored("smallest", KIB, 1), Stored("largest", LARGEST_READ, 2)]
        self.checkpoints = [Stored(f"checkpoint-{size}.pt", size, size) for size in _TENSOR_BYTES]
        self.small = [drawn(f"small/{number:02}", 200 * KIB, dice) for number in range(12)]
        (folder / "small").mkdir()
        for each in self.objects + self.small:
            (folder / each.key).write_bytes(each.bytes(0, each.size))
        for each in self.checkpoints:
            torch.save({"weights": self.tensor(each)}, folder / each.key)

    @staticmethod
    def tensor(checkpoint: Stored) -> torch.Tensor:
        """What is stored in a checkpoint."""
        return torch.frombuffer(bytearray(checkpoint.bytes(0, checkpoint.size)), dtype=torch.uint8)
