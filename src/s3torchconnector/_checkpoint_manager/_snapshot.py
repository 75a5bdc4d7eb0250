"""What a save in the background stores: the archive that ``torch.save`` makes of the state, in host memory.

A copy of the objects would have to preserve all that ``torch.save`` does (sharing, cycles, classes of tensors), and a
loss would be noticed only when a run is resumed. The archive is at most as large as the state, since it has each
storage once. Tensors on other devices are copied to the host for it.
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
    """A copy of a state. The state may change as soon as this is made."""

    def __init__(self, state: Any) -> None:
        self._pieces: deque[memoryview] = deque()
        self._size = save_archive(state, cast(PutObjectStream, self))

    def write(self, data: memoryview | bytearray, *, lent: bool = False) -> int:
        """Keep a copy, whether the data is lent or not: to ``save_archive``, this is a ``PutObjectStream``."""
        view = memoryview(data)
        self._pieces.append(_copied(view))
        return view.nbytes

    def expect(self, size: int) -> None:
        """Do nothing, for the same reason."""

    def close(self) -> None:
        """Do nothing: to ``save_archive``, this is a ``PutObjectStream``."""

    def store(self, stream: PutObjectStream) -> int:
        """Store the copy, and return its size in bytes.

        Each piece of memory is released after it was sent, unless the server may refuse the upload at its end for its
        checksums: then this can be called again.
        """
        stream.expect(self._size)
        with S3Writer(stream):
            for _ in range(len(self._pieces)):
                piece = self._pieces.popleft()
                stream.write(piece, lent=True)
                if stream.may_start_over:
                    self._pieces.append(piece)
        return self._size


def _copied(view: memoryview) -> memoryview:
    if view.nbytes < WORTH_LENDING:
        return memoryview(bytes(view))
    # PyTorch copies with several threads.
    source = torch.frombuffer(memory_at(address_of(view), view.nbytes, view), dtype=torch.uint8)
    return memory_of(source.clone())
