"""``S3Writer``: a binary file on top of an upload. ``close`` completes the upload; an exception aborts it."""

from __future__ import annotations

import io
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from s3torchconnector._types import ReadableBuffer

if TYPE_CHECKING:
    from s3torchconnector._transfer import PutObjectStream
else:  # for typing.get_type_hints; programs that only read need not wait for the import
    PutObjectStream = Any

__all__ = ["S3Writer"]


class S3Writer(io.BufferedIOBase):
    """One object of S3 as a write-only binary file. ``S3Checkpoint.writer`` and ``S3Client.put_object`` make them.

    The object appears as a whole when ``close`` returns. If the program leaves a ``with`` block by an exception, drops
    the writer, or ends without closing it, the upload is aborted: the object stays what it was before, and no
    multipart upload remains. A wrapper (``io.TextIOWrapper``, ``io.BufferedWriter``) closes the writer even after an
    exception, and so stores what was written until then. Call ``abort`` first to prevent that.

    Args:
        stream: a writer, whose upload this one takes over; or anything with ``write(data)``, ``close()`` and, to abort
            it, ``abort()``.

    Example:
        >>> from s3torchconnector import S3Checkpoint
        >>> with S3Checkpoint("us-east-1").writer("s3://my-bucket/epoch-1.txt") as writer:
        ...     print(writer.write(b"loss: 0.5"))
        9
    """

    def __init__(self, stream: PutObjectStream | S3Writer) -> None:
        self.stream: PutObjectStream = stream.stream if isinstance(stream, S3Writer) else stream
        self._position = 0

    def write(self, data: ReadableBuffer) -> int:
        """Append bytes to the object.

        Args:
            data: any bytes-like object. It may be changed as soon as this returns.

        Returns:
            The number of bytes written: all of them.

        Raises:
            ValueError: the writer is closed.
            TypeError: ``data`` is not a bytes-like object.
            S3Exception: an error occurred accessing S3.
        """
        self._check_open()
        view = memoryview(data)
        if not view.c_contiguous:
            view = memoryview(view.tobytes())
        self.stream.write(data if isinstance(data, bytes) else view.cast("B") if view.nbytes else b"")
        self._position += view.nbytes
        return view.nbytes

    def close(self) -> None:
        """Store the object. When this returns, all bytes are stored. A closed writer does nothing.

        Raises:
            S3ObjectExistsError: (a ``FileExistsError``) with ``overwrite=False``: another writer was faster.
            S3Exception: an error occurred accessing S3. The object is what it was before, unless the error says that
                this could not be checked.
        """
        if not self.closed:
            try:
                self.stream.close()
            finally:
                super().close()

    def abort(self) -> None:
        """Close without storing anything. The object stays what it was before."""
        self._close_with(getattr(self.stream, "abort", None))

    def _close_with(self, abort: Callable[[], object] | None) -> None:
        if not self.closed:
            try:
                if abort is not None:
                    abort()
            finally:
                super().close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        elif isinstance(error, GeneratorExit) and hasattr(self.stream, "abort_later"):
            # A generator that is dropped half-way ends here, maybe in a garbage collection, which must not wait.
            self._close_with(self.stream.abort_later)
        else:
            self.abort()

    def __del__(self) -> None:
        # Not IOBase's finaliser, which would close the writer, and so store half an object. The stream, which is
        # dropped now, aborts itself.
        return

    def flush(self) -> None:
        """Do nothing: bytes are sent when there are enough for a part, and in ``close``."""

    def readable(self) -> bool:
        """Return False: the object was opened for writing."""
        return False

    def writable(self) -> bool:
        """Return whether the writer is open."""
        return not self.closed

    def tell(self) -> int:
        """Return the number of bytes written."""
        return self._position

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed S3 writer")
