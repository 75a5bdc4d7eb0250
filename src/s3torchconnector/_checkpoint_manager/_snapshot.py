"""What a save in the background stores: the archive that ``torch.save`` makes of the state, in host memory.

A copy of the objects would have to keep whatever ``torch.save`` keeps (what is shared, cycles, classes of tensors), and
whatever it lost would be found when a run is resumed. The archive is as large as the state at most, since it holds
each storage once, and every tensor of another device comes to the host for it.
"""

from __future__ import annotations

from collections import deque
from typing import Any, cast

import torch

from s3torchconnector._tensor_memory import memory_at, memory_of
from s3torchconnector._torch_archives import WORTH_LENDING, save_archive
from s3torchconnector._transfer import PutObjectStream, address_of
from s3torchconnector.s3writer import S3Writer


class Snapshot:
    """A state as it is now, which may change when this is made."""

    def __init__(self, state: Any) -> None:
        self._pieces: deque[memoryview] = deque()
        self._size = save_archive(state, cast(PutObjectStream, self))

    def write(self, data: memoryview | bytearray, *, lent: bool = False) -> int:
        """As a ``PutObjectStream``, to be written to by ``save_archive``: keep a copy, whether lent or not."""
        view = memoryview(data)
        self._pieces.append(_copied(view))
        return view.nbytes

    def close(self) -> None:
        """As a ``PutObjectStream``."""

    def store(self, stream: PutObjectStream) -> int:
        """Store it, once, and give up each piece as soon as it is sent. Returns its size in bytes."""
        with S3Writer(stream):
            while self._pieces:
                stream.write(self._pieces.popleft(), lent=True)
        return self._size


def _copied(view: memoryview) -> memoryview:
    if view.nbytes < WORTH_LENDING:
        return memoryview(bytes(view))
    # By PyTorch, whose threads share the work.
    there = torch.frombuffer(memory_at(address_of(view), view.nbytes, view), dtype=torch.uint8)
    return memory_of(there.clone())
