"""Archives of ``torch.save`` whose tensors are sent from their own memory, and summed once.

PyTorch writes a storage from its own memory, in one large write between many small ones. If that memory belongs to a
tensor of the program, which does not change before the save has ended, it is lent to the upload, instead of being
copied into parts. Other memory (a copy from another device, or of a part of a storage) is released after the write, so
it is copied as any other data.
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
WORTH_LENDING = 64 * KIB  # tensors of fewer bytes are not lent, since each takes a buffer in the request


def without_record_checksums() -> AbstractContextManager[object]:
    """Have ``torch.save`` on this thread write no CRC-32 of the tensors, which take a quarter of a second for each GiB.

    No version of ``torch.load`` compares them, and uploads have checksums of all bytes. Does nothing if this version of
    PyTorch has no such setting for a single thread.
    """
    setting = getattr(_config, "_config", {}).get(_COMPUTE_CRC32)
    if not isinstance(getattr(setting, "user_override", None), ContextVar):
        return nullcontext()
    patch: AbstractContextManager[object] = _config.patch(_COMPUTE_CRC32, False)
    return patch


class Lendable:
    """The memory of tensors that do not change before their save has ended."""

    def __init__(self) -> None:
        self._storages: dict[tuple[int, int], torch.UntypedStorage] = {}

    def add(self, tensor: torch.Tensor) -> None:
        """Remember the tensor's storage, if it is in host memory and large enough."""
        if not is_plain(tensor) or tensor.device.type != "cpu" or tensor.layout != torch.strided:
            return
        storage = tensor.untyped_storage()
        if storage.nbytes() >= WORTH_LENDING:
            self._storages[storage.data_ptr(), storage.nbytes()] = storage

    def find(self, view: memoryview) -> memoryview | None:
        """The memory of ``view``, once, in a view that keeps it alive; None if it is not that of a known tensor."""
        if not self._storages:
            return None
        storage = self._storages.pop((address_of(view), view.nbytes), None)
        if storage is None:
            return None
        return memory_at(storage.data_ptr(), storage.nbytes(), storage)


class ArchiveWriter(S3Writer):
    """Writes what PyTorch serialises, as the module says.

    ``when_written`` is called when everything has been written, before the upload is completed.
    """

    def __init__(
        self, stream: PutObjectStream, lendable: Lendable, when_written: Callable[[], object] = lambda: None
    ) -> None:
        super().__init__(stream)
        self._lendable = lendable
        self._when_written = when_written
        self._gathered = bytearray()  # small writes since the last large one: PyTorch makes forty for each tensor
        self._room = WORTH_LENDING  # bytes that may be gathered; 0 if it is closed

    def close(self) -> None:
        """Store the object, see ``S3Writer.close``."""
        if not self.closed:
            self._send_gathered()
            self._when_written()
            self._room = 0
        super().close()

    def write(self, data: ReadableBuffer) -> int:
        """Write bytes. They may be changed when this returns, unless they were lent."""
        view = memoryview(data)
        size = view.nbytes
        if size < self._room:  # all of this holds up the other threads, which send
            self._gathered += view
            self._room -= size
            return size
        self._check_open()
        self._send_gathered()
        lent = self._lendable.find(view) if size >= WORTH_LENDING else None
        if lent is None:
            return super().write(view)
        self.stream.write(lent, lent=True)
        self._position += size
        return size

    def tell(self) -> int:
        """Return the number of bytes written."""
        return self._position + len(self._gathered)

    def _send_gathered(self) -> None:
        if self._gathered:
            self.stream.write(self._gathered)  # copied
            self._position += len(self._gathered)
            self._gathered.clear()
            self._room = WORTH_LENDING

    def _close_with(self, abort: Callable[[], object] | None) -> None:
        self._room = 0
        super()._close_with(abort)


def save_archive(state: Any, stream: PutObjectStream) -> int:
    """Save ``state`` to ``stream`` by ``torch.save``, and close it. Returns the size in bytes."""
    lendable = Lendable()
    for tensor in _tensors_in(state):
        lendable.add(tensor)
    stream.expect(size_of_tensors(state))
    with ArchiveWriter(stream, lendable) as writer, without_record_checksums():
        torch.save(state, cast(IO[bytes], writer))
    return writer.tell()


def size_of_tensors(state: Any) -> int:
    """About how many bytes ``torch.save`` writes for a state: those of its dense tensors, counted as often as they
    occur.
    """
    return sum(tensor.nbytes for tensor in _tensors_in(state) if tensor.layout == torch.strided)


def _tensors_in(state: Any) -> Iterator[torch.Tensor]:
    """The tensors of a state, in nested dicts, lists and tuples, which may contain themselves."""
    left, seen = [state], set()
    while left:
        value = left.pop()
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            left += value.values() if isinstance(value, Mapping) else value
