"""Archives of ``torch.save`` whose tensors are stored from where they are, and summed once.

PyTorch hands over a storage by its address, in one large write in the middle of many small ones. What lies at an
address that the program has told is a tensor of its own, which does not change before the save has ended: its memory is
lent to the upload instead of copied into parts. What lies elsewhere (copies from other devices, of a part of a storage)
is gone after the write, and is copied as any other data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import IO, TYPE_CHECKING, Any, cast

import torch

from s3torchconnector._config import KIB
from s3torchconnector._tensor_memory import is_plain, memory_at
from s3torchconnector._transfer import PutObjectStream, address_of
from s3torchconnector.s3writer import S3Writer

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_config: Any
try:
    from torch.utils.serialization import config as _config
except ImportError:  # before PyTorch 2.6
    _config = None
_COMPUTE_CRC32 = "save.compute_crc32"
WORTH_LENDING = 64 * KIB  # bytes of a tensor from which on it is lent: each takes a buffer in the request


def without_record_checksums() -> AbstractContextManager[object]:
    """Have ``torch.save`` on this thread write no CRC-32 of each tensor: a quarter of a second for each GiB.

    No version of ``torch.load`` compares them, and uploads carry checksums of all bytes. In versions of PyTorch whose
    settings are not a thread's own nothing changes.
    """
    setting = getattr(_config, "_config", {}).get(_COMPUTE_CRC32)
    if not isinstance(getattr(setting, "user_override", None), ContextVar):
        return nullcontext()
    patch: AbstractContextManager[object] = _config.patch(_COMPUTE_CRC32, False)
    return patch


class Lendable:
    """The memory of tensors that stay as they are until their save has ended."""

    def __init__(self) -> None:
        self._storages: dict[tuple[int, int], torch.UntypedStorage] = {}

    def add(self, tensor: torch.Tensor) -> None:
        """Remember the tensor's storage, if it is in the host's memory and worth it."""
        if not is_plain(tensor) or tensor.device.type != "cpu" or tensor.layout != torch.strided:
            return
        storage = tensor.untyped_storage()
        if storage.nbytes() >= WORTH_LENDING:
            self._storages[storage.data_ptr(), storage.nbytes()] = storage

    def take(self, view: memoryview) -> memoryview | None:
        """The memory that ``view`` shows, in a view that keeps it; None where it is nobody's that is known."""
        if not self._storages:
            return None
        storage = self._storages.pop((address_of(view), view.nbytes), None)
        if storage is None:
            return None
        return memory_at(storage.data_ptr(), storage.nbytes(), storage)


class ArchiveWriter(S3Writer):
    """Writes what PyTorch serialises; see the module.

    ``when_written`` is called when all of it is here, and is about to be completed.
    """

    def __init__(
        self, stream: PutObjectStream, lendable: Lendable, when_written: Callable[[], object] = lambda: None
    ) -> None:
        super().__init__(stream)
        self._lendable = lendable
        self._when_written = when_written
        self._gathered = bytearray()  # small writes since the last large one: PyTorch makes forty of them a tensor

    def close(self) -> None:
        """As ``S3Writer``."""
        if not self.closed:
            self._pass_on()
            self._when_written()
        super().close()

    def write(self, data: ReadableBuffer) -> int:
        """Write bytes; they may be changed when this returns, unless they were lent."""
        self._check_open()
        view = memoryview(data)
        if view.nbytes < WORTH_LENDING:
            self._gathered += view
            if len(self._gathered) >= WORTH_LENDING:
                self._pass_on()
        else:
            self._pass_on()
            lent = self._lendable.take(view)
            if lent is None:
                return super().write(view)
            self.stream.write(lent, lent=True)
        self._position += view.nbytes
        return view.nbytes

    def _pass_on(self) -> None:
        if self._gathered:
            self.stream.write(self._gathered)  # copied
            self._gathered.clear()


def save_archive(state: Any, stream: PutObjectStream) -> int:
    """``torch.save`` to ``stream``, to its end. Returns the size in bytes."""
    lendable = Lendable()
    for tensor in _tensors_in(state):
        lendable.add(tensor)
    with ArchiveWriter(stream, lendable) as writer, without_record_checksums():
        torch.save(state, cast(IO[bytes], writer))
    return writer.tell()


def _tensors_in(state: Any) -> Iterator[torch.Tensor]:
    """The tensors of a state, in dicts, lists and tuples in one another, which may contain themselves."""
    left, seen = [state], set()
    while left:
        value = left.pop()
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            left += value.values() if isinstance(value, Mapping) else value
