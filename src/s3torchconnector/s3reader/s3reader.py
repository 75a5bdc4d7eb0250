"""``S3Reader``: the file protocol on top of random access to an object.

There is one reader. What differs between ways of reading is a policy (see ``S3ReaderConstructor``); ``seek``,
``tell``, ``read`` and ``readinto`` are the same for all of them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from copy import copy
from io import SEEK_CUR, SEEK_END, SEEK_SET
from operator import index
from typing import Any

from s3torchconnector._config import KIB, MIB
from s3torchconnector._transfer import ADAPTIVE, ObjectSource, ReadPolicy
from s3torchconnector._types import HeadObjectResult, ObjectInfo, WriteableBuffer
from s3torchconnector._uri import display_uri
from s3torchconnector.s3reader._bytes_source import BytesByPosition, StreamedBytes

_PEEK = 16 * KIB
_READ1 = 1 * MIB
_LINES = 64 * KIB  # read at a time to find lines in


class S3Reader(io.BufferedIOBase):
    """A read-only, file like representation of a single object stored in S3.

    Works wherever a binary file does: ``torch.load``, ``PIL.Image.open``, ``zipfile``, ``pickle.load``,
    ``numpy.load``, ``pandas.read_parquet``, ``io.TextIOWrapper``. Every request after the first asks for the same
    version of the object; if it was overwritten meanwhile, reading raises ``S3ObjectChangedError``.

    A reader may be used by one thread at a time. One that was opened before a fork goes on in the child, on
    connections of its own. It pickles and copies, read or unread: the copy is at the same place, and fetches anew.

    Args:
        bucket: the object's bucket.
        key: the object's key.
        get_object_info: describes the object.
        get_stream: streams the object's bytes: ``get_stream(start=None, end=None)``; any iterable of ``bytes`` will do.
        policy: how reads become requests, see ``S3ReaderConstructor``.

    Raises:
        ValueError: the bucket is empty.
    """

    # Bytes of the object in which the last line was found, and where they begin. Those of one version do not change.
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

    @property
    def bucket(self) -> str:
        """The object's bucket."""
        return self._bucket

    @property
    def key(self) -> str:
        """The object's key."""
        return self._key

    def prefetch(self) -> None:
        """Start fetching data from S3. Waits until S3 begins to answer, while the data comes in the background.

        Raises:
            S3Exception: An error occurred accessing S3.
        """
        self._check_open()
        self._object.prefetch()
        self._object.await_head()

    # What a dataset and the end of a reader call is there for subclasses too that never call this constructor, as was
    # right where this class was abstract.

    def _start_early(self, likely_size: int | None = None) -> bool:
        """``prefetch`` for a loop that will come to this object later; see ``look_ahead``."""
        source = self._source()
        if source is not None:
            source.prefetch(likely_size)
        return source is not None

    def _hand_out(self) -> int | None:
        """The loop has come to this object: from now on its memory is its user's. Returns its size, if known."""
        source = self._source()
        return None if source is None else source.hand_out()

    def _source(self) -> BytesByPosition | None:
        return self.__dict__.get("_object")

    def readinto(self, buf: WriteableBuffer) -> int:
        """Read up to len(buf) bytes into a pre-allocated, writable bytes-like object buf.

        The bytes are received straight into its memory. ``buf`` may have any format and shape (an array, the memory
        of a tensor), as long as it is C-contiguous. Its content is undefined after an error.

        Args:
            buf: writable bytes-like object

        Returns:
            number of bytes read; zero only at the object's end, or if ``buf`` is empty.

        Raises:
            TypeError: ``buf`` is not a writable, C-contiguous bytes-like object.
            S3Exception: An error occurred accessing S3.
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
        """Read up to size bytes from the object and return them.

        If size is zero or positive, read that many bytes from S3, or until the end of the object. If size is None or
        negative, read the entire file.

        Args:
            size: how many bytes to read.

        Returns:
            Bytes read from S3 Object

        Raises:
            S3Exception: An error occurred accessing S3.
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
        """Read up to ``size`` bytes, rather those that are here already than more; used by ``io.TextIOWrapper``."""
        self._check_open()
        count = index(size)
        if count == 0:
            return b""
        here = self._object.buffered(self._position)
        return self.read(min(len(here) or _READ1, count if count > 0 else _READ1))

    def peek(self, size: int = 0) -> bytes:
        """Bytes that come next, without moving on: at least one unless at the end, whatever ``size`` says."""
        self._check_open()
        here = self._object.buffered(self._position) or self._ahead()
        return bytes(here[: max(index(size), _PEEK)])

    def readline(self, size: int | None = -1, /) -> bytes:
        """The rest of the line, with its end, or the first ``size`` bytes of it."""
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
        """A line that may not be here, or is longer than ``limit``."""
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
        """Bytes that come next, for the lines in them; none at the end."""
        offset = self._position - self._lines_start
        if not 0 <= offset < len(self._lines):
            self._lines, self._lines_start, offset = self._object.read(self._position, _LINES), self._position, 0
        return self._lines[offset:]

    def seek(self, offset: int, whence: int = SEEK_SET, /) -> int:
        """Change the stream position to the given byte offset, interpreted relative to whence.

        When seeking beyond the end of the file, always stay at EOF. Seeking before the start of the file results in a
        ValueError.

        Args:
            offset: How many bytes to seek relative to whence.
            whence: One of SEEK_SET, SEEK_CUR, and SEEK_END. Default: SEEK_SET

        Returns:
            Current position of the stream

        Raises:
            S3Exception: An error occurred accessing S3.
            ValueError: the position is before the start, or ``whence`` is none of the three.
            TypeError: ``offset`` is not an integer.
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
        # Nobody need be asked whether a place that was read before is inside the object.
        self._position = target if target <= self._position else min(target, self._object.size())
        return self._position

    def tell(self) -> int:
        """
        Returns:
            Current stream position; of a closed reader, its last.
        """
        return self._position

    def readable(self) -> bool:
        """
        Returns:
            Return whether object was opened for reading.
        """
        self._check_open()
        return True

    def writable(self) -> bool:
        """
        Returns:
            Return whether object was opened for writing.
        """
        self._check_open()
        return False

    def seekable(self) -> bool:
        """Whether ``seek`` works: it does."""
        self._check_open()
        return True

    def close(self) -> None:
        """Stop fetching and let go of all memory. Reading afterwards is a ValueError."""
        if not self.closed:
            source = self._source()
            if source is not None:
                source.close()
            self._lines = b""
        super().close()

    def __getstate__(self) -> dict[str, Any]:
        # A copy, in this process or another, fetches for itself, and of the same version.
        source = self._source()
        return self.__dict__ if source is None else {**self.__dict__, "_object": copy(source), "_lines": b""}

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError(f"I/O operation on the closed reader of {display_uri(self.bucket, self.key)}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {display_uri(self.bucket, self.key)} at {self.tell()}>"
