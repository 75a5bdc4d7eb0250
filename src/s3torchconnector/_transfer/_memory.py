"""Large buffers and large copies, with the interpreter lock held as little as can be."""

from __future__ import annotations

import ctypes
import mmap

from s3torchconnector._config import MIB

_LARGE = 1 * MIB  # bytes from which a copy is worth giving up the interpreter lock for

LargeBuffer = bytearray | mmap.mmap


def new_buffer(size: int) -> LargeBuffer:
    """``size`` writable bytes of any content.

    Anonymous memory, which the kernel zeroes page by page as it is received into, where ``bytearray`` zeroes all of it
    with the interpreter lock held. Private: a forked child must not see what its parent receives later.
    """
    if hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return bytearray(size)


def copy(destination: memoryview, source: memoryview | bytes) -> None:
    """Copy bytes into memory of the same length.

    Assigning to a slice holds the interpreter lock, and with it every other transfer, while the destination's pages are
    touched for the first time; ``ctypes.memmove`` does not.
    """
    if len(source) < _LARGE or isinstance(source, bytes) or source.readonly:
        destination[:] = source
    else:
        ctypes.memmove(_address(destination), _address(source), len(source))


def _address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))
