"""Large buffers and large copies, holding the interpreter lock as little as possible."""

from __future__ import annotations

import ctypes
import io
import mmap
import sys

from s3torchconnector._config import MIB

_LARGE = 1 * MIB  # bytes from which a copy is worth releasing the interpreter lock for

LargeBuffer = bytearray | mmap.mmap

_PAGE = mmap.PAGESIZE
_MADV_POPULATE_WRITE = 23
if sys.platform == "linux":
    _madvise = ctypes.CDLL(None).madvise
    _madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    _mincore = ctypes.PyDLL(None).mincore  # keeps the interpreter lock, which takes longer to get back
    _mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)


class FillableBytes(io.BytesIO):
    """``bytes`` that are filled through ``getbuffer`` and handed out by ``getvalue`` without a copy.

    If the garbage collector comes to a ``BytesIO`` before its view, as at an exit with transfers under way, it closes
    the ``BytesIO`` and complains on stderr that it cannot. There is nothing to close.
    """

    __slots__ = ()

    def close(self) -> None:
        """Do nothing."""


class CopiedBytes(FillableBytes):
    """The same by a copy, without a view of a ``BytesIO``."""

    __slots__ = ("_content",)

    def __init__(self, content: bytes = b"") -> None:
        super().__init__()
        self._content = bytearray(content)

    def getbuffer(self) -> memoryview:
        """The memory to be filled."""
        return memoryview(self._content)

    def getvalue(self) -> bytes:
        """What has been filled in."""
        return bytes(self._content)


if (3, 12, 0) <= sys.version_info[:3] < (3, 12, 2):
    # There, the collection of a view of a BytesIO is a segmentation fault (https://github.com/python/cpython/issues/111049).
    FillableBytes = CopiedBytes  # type: ignore[misc, assignment]


def new_buffer(size: int) -> LargeBuffer:
    """``size`` writable bytes of any content.

    The memory is anonymous: the kernel zeroes each page when something is received into it, while ``bytearray`` zeroes
    everything with the interpreter lock held. It is private: a forked child must not see what its parent receives
    later.
    """
    if hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return bytearray(size)


def copy(destination: memoryview, source: memoryview | bytes) -> None:
    """Copy bytes into memory of the same length.

    Assigning to a slice holds the interpreter lock, and so every other transfer, while the destination's pages are
    touched for the first time; ``ctypes.memmove`` does not.
    """
    if len(source) < _LARGE or isinstance(source, bytes):
        destination[:] = source
    else:
        populate(destination)
        ctypes.memmove(address_of(destination), address_of(source), len(source))


def populate(view: memoryview) -> None:
    """Have the kernel find all pages of new memory at once, before it is filled.

    Allocating them one by one, on first access, takes half as long again. If the last page of the memory exists, all
    pages do, and nothing is done. Does nothing if the kernel does not support it (Linux before 5.14).
    """
    if sys.platform != "linux" or len(view) < _LARGE:
        return
    address = address_of(view)
    first, stop = -(-address // _PAGE) * _PAGE, (address + len(view)) // _PAGE * _PAGE
    resident = ctypes.create_string_buffer(1)
    if _mincore(stop - _PAGE, _PAGE, resident) == 0 and not resident.raw[0] & 1:
        _madvise(first, stop - first, _MADV_POPULATE_WRITE)


def address_of(view: memoryview) -> int:
    """Where C-contiguous memory begins, also if ``ctypes`` refuses because it is read-only."""
    if not view.readonly:
        return ctypes.addressof(ctypes.c_char.from_buffer(view))
    buffer = _PyBuffer()
    _get_buffer(view, buffer, 0)
    try:
        return int(buffer.buf)
    finally:
        _release_buffer(buffer)


class _PyBuffer(ctypes.Structure):
    """``Py_buffer`` of https://docs.python.org/3/c-api/buffer.html"""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = (ctypes.py_object, ctypes.POINTER(_PyBuffer), ctypes.c_int)
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = (ctypes.POINTER(_PyBuffer),)
_release_buffer.restype = None
