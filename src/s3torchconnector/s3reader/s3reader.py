"""``S3Reader``: a binary file on top of random access to an object.

There is one reader for all ways of reading, which differ only in their policy (see ``S3ReaderConstructor``).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from copy import copy
from io import SEEK_CUR, SEEK_END, SEEK_SET
from operator import index
from typing import Any

from s3torchconnector._config import KIB, MIB
from s3torchconnector._transfer import ADAPTIVE, FIRST_BYTES, BytesByPosition, ObjectSource, ReadPolicy
from s3torchconnector._types import HeadObjectResult, ObjectInfo, WriteableBuffer
from s3torchconnector._uri import display_uri
from s3torchconnector.s3reader._bytes_source import StreamedBytes

__all__ = ["S3Reader"]

_PEEK = 16 * KIB
_READ1 = 1 * MIB
_LINES = 64 * KIB  # read at a time to find lines in


class S3Reader(io.BufferedIOBase):
    """One object of S3 as a read-only binary file. Datasets and ``S3Checkpoint.reader`` make readers.

    Works wherever a binary file does: ``torch.load``, ``PIL.Image.open``, ``zipfile``, ``pickle.load``,
    ``numpy.load``, ``pandas.read_parquet``, ``io.TextIOWrapper``. All bytes come from one version of the object: if it
    is overwritten in the meantime, reading raises ``S3ObjectChangedError``.

    A reader may be used by one thread at a time. A forked child can continue with a reader of its parent, on its own
    connections. A reader can be pickled and copied, even after use: the copy has the same position, and fetches again.

    Args:
        bucket: the object's bucket.
        key: the object's key.
        get_object_info: returns what is known about the object, with a ``size`` in bytes.
        get_stream: returns the object's bytes as an iterable of ``bytes``; called as ``get_stream(start, end)`` or
            ``get_stream()``.
        policy: how reads become requests, see ``S3ReaderConstructor``.

    Raises:
        ValueError: the bucket is empty.

    Example:
        >>> from s3torchconnector import S3Checkpoint
        >>> with S3Checkpoint("us-east-1").reader("s3://my-bucket/images/0.png") as reader:
        ...     print(reader.read(4), reader.tell(), reader.seek(-2, 2), reader.read())
        b'\\x89PNG' 4 8 b'00'
    """

    # Bytes of the object in which the last line was found, and where they begin. The bytes of a version never change.
    _lines = b""
    _lines_start = 0

    def __init__(
        self,
        bucket: str,
        key: str,
        get_object_info: Callable[[], ObjectInfo | HeadObjectResult],
        get_stream: Callable[..., Iterable[bytes]],
        *,
        policy: ReadPolicy = ADAPTIVE,
    ) -> None:
        if not bucket:
            raise ValueError("Bucket should be specified: a reader needs the name of its object's bucket")
        self._bucket = bucket
        self._key = key
        self._position = 0
        self._object: BytesByPosition
        if isinstance(get_stream, ObjectSource):
            self._object = get_stream.open(policy)
        else:
            self._object = StreamedBytes(get_stream, get_object_info)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # PyTorch looks for ``read`` while an error of ``readinto`` is pending. CPython then finds only what the class
        # itself has, and not what it inherits: the program would get an AttributeError instead of the error.
        if "read" not in cls.__dict__:
            cls.read = cls.read  # type: ignore[method-assign]

    @property
    def bucket(self) -> str:
        """The object's bucket."""
        return self._bucket

    @property
    def key(self) -> str:
        """The object's key."""
        return self._key

    def prefetch(self) -> None:
        """Start fetching the object. Returns when S3 begins to respond; the data arrives in the background.

        Raises:
            S3Exception: an error occurred accessing S3.
            ValueError: the reader is closed.
        """
        self._check_open()
        self._object.prefetch()
        self._object.await_head()

    # These also work in subclasses that never call this constructor, as in 1.5.0, where this class is abstract.

    def _start_early(self, likely_size: int | None = None) -> bool:
        """Start fetching, for a loop that will read this object later (see ``look_ahead``). Whether it can."""
        source = self._source()
        if source is not None:
            if likely_size is None:
                source.prefetch(FIRST_BYTES, FIRST_BYTES)
            else:
                source.prefetch(likely_size)
        return source is not None

    def _hand_out(self) -> int | None:
        """Count the object's memory as the program's from now on. Return the object's size in bytes, if known."""
        source = self._source()
        return None if source is None else source.hand_out()

    def _source(self) -> BytesByPosition | None:
        return self.__dict__.get("_object")

    def readinto(self, buf: WriteableBuffer) -> int:
        """Read up to ``len(buf)`` bytes into ``buf``. They are received directly into its memory.

        Args:
            buf: a writable, C-contiguous bytes-like object of any format and shape, such as an array or the memory of
                a tensor. Its content is undefined after an error.

        Returns:
            The number of bytes read; zero only at the end of the object, or if ``buf`` is empty.

        Raises:
            TypeError: ``buf`` is not a writable, C-contiguous bytes-like object.
            S3Exception: an error occurred accessing S3.
            ValueError: the reader is closed.
        """
        self._check_open()
        try:
            view = memoryview(buf)
        except TypeError:
            view = memoryview(b"")
        if view.readonly or not view.c_contiguous:
            raise TypeError(
                f"readinto needs a writable, C-contiguous bytes-like object, not {type(buf).__name__}"
                + (" that is read-only or has gaps" if view.nbytes else "")
            )
        if view.nbytes == 0:
            return 0
        count = self._object.readinto(self._position, view.cast("B"))
        self._position += count
        return count

    def read(self, size: int | None = None) -> bytes:
        """Read and return up to ``size`` bytes.

        Args:
            size: how many bytes to read; fewer are returned only at the end of the object. If None or negative, all
                bytes up to the end.

        Returns:
            The bytes; empty at the end of the object.

        Raises:
            S3Exception: an error occurred accessing S3.
            ValueError: the reader is closed.
        """
        self._check_open()
        count = -1 if size is None else index(size)
        if count == 0:
            return b""
        if count < 0:
            data = self._object.read_to_end(self._position)
        else:
            data = self._object.read(self._position, count)
        self._position += len(data)
        return data

    def read1(self, size: int = -1) -> bytes:
        """Read up to ``size`` bytes. If some have arrived, only those, without waiting. For ``io.TextIOWrapper``."""
        self._check_open()
        count = index(size)
        if count == 0:
            return b""
        here = self._object.buffered(self._position)
        return self.read(min(len(here) or _READ1, count if count > 0 else _READ1))

    def peek(self, size: int = 0) -> bytes:
        """Return the next bytes without moving: at least one, except at the end. ``size`` is a hint."""
        self._check_open()
        here = self._object.buffered(self._position) or self._ahead()
        return bytes(here[: max(index(size), _PEEK)])

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read the rest of the line, with its line end, or the first ``size`` bytes of it."""
        self._check_open()
        limit = -1 if size is None else index(size)
        if limit < 0:
            offset = self._position - self._lines_start
            end = self._lines.find(b"\n", offset) + 1 if offset >= 0 else 0
            if end:
                self._position = self._lines_start + end
                return self._lines[offset:end]
        return self._read_line(limit)

    def _read_line(self, limit: int) -> bytes:
        """Read a line that may not have arrived, or is longer than ``limit``."""
        line = b""
        while limit < 0 or len(line) < limit:
            here = self._ahead() if limit < 0 else self._ahead()[: limit - len(line)]
            end = here.find(b"\n") + 1
            line += here[: end or len(here)]
            self._position += end or len(here)
            if end or not here:
                break
        return line

    def _ahead(self) -> bytes:
        """The next bytes, to find lines in; none at the end."""
        offset = self._position - self._lines_start
        if not 0 <= offset < len(self._lines):
            self._lines, self._lines_start, offset = self._object.read(self._position, _LINES), self._position, 0
        return self._lines[offset:]

    def seek(self, offset: int, whence: int = SEEK_SET, /) -> int:
        """Move to another position. A position beyond the end of the object becomes the end.

        Args:
            offset: bytes, relative to ``whence``.
            whence: ``SEEK_SET`` (the start), ``SEEK_CUR`` (the position) or ``SEEK_END`` (the end of the object).

        Returns:
            The new position, in bytes from the start.

        Raises:
            ValueError: the position is before the start, ``whence`` is none of the three, or the reader is closed.
            TypeError: ``offset`` is not an integer.
            S3Exception: an error occurred accessing S3.
        """
        self._check_open()
        offset = index(offset)
        whence = index(whence)
        if whence == SEEK_CUR and offset == 0:
            return self._position
        if whence == SEEK_END:
            target = self._object.size() + offset
        elif whence in (SEEK_SET, SEEK_CUR):
            target = offset + (self._position if whence == SEEK_CUR else 0)
        else:
            raise ValueError(f"whence must be SEEK_SET, SEEK_CUR or SEEK_END, not {whence}")
        if target < 0:
            raise ValueError(f"cannot seek to {target}, before the start of {display_uri(self._bucket, self._key)}")
        # A position that was read before is inside the object: its size is not needed.
        self._position = target if target <= self._position else min(target, self._object.size())
        return self._position

    def tell(self) -> int:
        """Return the position, in bytes from the start. A closed reader returns its last."""
        return self._position

    def readable(self) -> bool:
        """Return True: the object was opened for reading. Raises a ``ValueError`` if the reader is closed."""
        self._check_open()
        return True

    def writable(self) -> bool:
        """Return False: the object was opened for reading. Raises a ``ValueError`` if the reader is closed."""
        self._check_open()
        return False

    def seekable(self) -> bool:
        """Return True: ``seek`` works. Raises a ``ValueError`` if the reader is closed."""
        self._check_open()
        return True

    def close(self) -> None:
        """Stop fetching, and release all memory. Reading afterwards raises a ``ValueError``."""
        if not self.closed:
            source = self._source()
            if source is not None:
                source.close()
            self._lines = b""
        super().close()

    def __getstate__(self) -> dict[str, Any]:
        # A copy, in this process or another, fetches the same version for itself.
        source = self._source()
        return self.__dict__ if source is None else {**self.__dict__, "_object": copy(source), "_lines": b""}

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError(f"I/O operation on the closed reader of {display_uri(self.bucket, self.key)}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {display_uri(self.bucket, self.key)} at {self.tell()}>"
