"""Bytes that the processes of a node share: a mapped file, or anonymous memory with a descriptor.

Forked children share it like any memory. Spawned children receive the descriptor and map it too, so their start copies
nothing, leaves no file, and uses no ``/dev/shm``, which is small in containers. A pickle that does not go to a child of
this process holds the bytes. Windows passes no descriptors: there, children receive a copy of constant bytes, and the
name of memory that changes.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from collections.abc import Callable
from multiprocessing import context, reduction
from multiprocessing.shared_memory import SharedMemory
from typing import Any

from s3torchconnector._platform import IS_POSIX


class MappedBytes:
    """Bytes that never change.

    Args:
        descriptor: of an open file or of anonymous memory. It belongs to this object, which closes it.
        size: in bytes, at least one.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor).atexit = False
        self._map = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)
        self.view = memoryview(self._map)

    @classmethod
    def filled(cls, size: int, fill: Callable[[memoryview], object]) -> MappedBytes:
        """New memory, written by ``fill``."""
        descriptor = _anonymous_memory()
        try:
            write(descriptor, size, fill)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor, size)

    @classmethod
    def of_file(cls, path: str) -> MappedBytes:
        """A file, which may be deleted while it is mapped.

        Raises:
            OSError: it cannot be opened.
            ValueError: it is empty.
        """
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            return cls(descriptor, os.fstat(descriptor).st_size)
        except ValueError:
            raise ValueError(f"{path} is empty") from None

    def __reduce__(self) -> tuple[Any, ...]:
        if IS_POSIX and context.get_spawning_popen() is not None:
            return _attached, (reduction.DupFd(self._descriptor), len(self.view))
        return _copied, (bytes(self.view),)


class SharedNumbers:
    """Whole numbers that the processes of a dataset write and read. Each is stored and loaded at once.

    Not a tensor: operations on tensors may hang in a child that was forked after its parent's threads had used them.

    Args:
        descriptor: of a file or of anonymous memory of ``8 * count`` bytes. It belongs to this object, which closes it.
        count: how many there are.
    """

    def __init__(self, descriptor: int, count: int) -> None:
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor).atexit = False
        self._map = mmap.mmap(descriptor, 8 * count)
        self.numbers = memoryview(self._map).cast("q")

    @classmethod
    def zeros(cls, count: int) -> SharedNumbers:
        """New ones."""
        if not IS_POSIX:
            return NamedNumbers(SharedMemory(create=True, size=8 * count), count)
        descriptor = _anonymous_memory()
        os.ftruncate(descriptor, 8 * count)
        return cls(descriptor, count)

    def __reduce__(self) -> tuple[Any, ...]:
        if IS_POSIX and context.get_spawning_popen() is not None:
            return _attached_numbers, (reduction.DupFd(self._descriptor), len(self.numbers))
        return _copied_numbers, (bytes(self.numbers),)  # a copy that does not go to a worker has numbers of its own


class NamedNumbers(SharedNumbers):
    """The same in memory that has a name, for systems that pass no descriptors.

    Args:
        memory: where they are. It belongs to this object, which closes it.
        count: how many there are.
        owner: whether the memory ends with this object, on systems where it does not end by itself.
    """

    def __init__(self, memory: SharedMemory, count: int, *, owner: bool = True) -> None:
        self._name = memory.name
        assert memory.buf is not None
        self.numbers = memory.buf[: 8 * count].cast("q")  # the system may round its size up
        weakref.finalize(self, _end_memory, memory, self.numbers, owner)

    def __reduce__(self) -> tuple[Any, ...]:
        if context.get_spawning_popen() is not None:
            return _named_numbers, (self._name, len(self.numbers))
        return super().__reduce__()


def write(descriptor: int, size: int, fill: Callable[[memoryview], object]) -> None:
    """Make a file of ``size`` bytes, written by ``fill``."""
    os.ftruncate(descriptor, size)
    pages = mmap.mmap(descriptor, size)
    view = memoryview(pages)
    fill(view)
    view.release()
    pages.close()  # not after an error, whose traceback may hold views of it


def _anonymous_memory() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("s3torchconnector", getattr(os, "MFD_CLOEXEC", 0))
    with tempfile.TemporaryFile() as file:  # which has no name, or loses it when it is closed
        return os.dup(file.fileno())


def _attached(descriptor: Any, size: int) -> MappedBytes:
    return MappedBytes(descriptor.detach(), size)


def _copied(data: bytes) -> MappedBytes:
    def fill(view: memoryview) -> None:
        view[:] = data

    return MappedBytes.filled(len(data), fill)


def _attached_numbers(descriptor: Any, count: int) -> SharedNumbers:
    return SharedNumbers(descriptor.detach(), count)


def _named_numbers(name: str, count: int) -> NamedNumbers:
    return NamedNumbers(SharedMemory(name), count, owner=False)


def _end_memory(memory: SharedMemory, numbers: memoryview, owner: bool) -> None:
    numbers.release()
    memory.close()
    if owner:
        memory.unlink()


def _copied_numbers(data: bytes) -> SharedNumbers:
    copy = SharedNumbers.zeros(len(data) // 8)
    copy.numbers[:] = memoryview(data).cast("q")
    return copy
