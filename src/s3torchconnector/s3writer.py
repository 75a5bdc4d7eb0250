"""``S3Writer``: the file protocol on top of an upload. Leaving it well completes; everything else aborts."""

from __future__ import annotations

import io
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from s3torchconnector._types import ReadableBuffer

if TYPE_CHECKING:
    from s3torchconnector._transfer import PutObjectStream
else:  # for typing.get_type_hints; who only reads need not wait for that import
    PutObjectStream = Any


class S3Writer(io.BufferedIOBase):
    """A write-only, file like representation of a single object stored in S3.

    The object appears when ``close`` returns, whole. Leaving a ``with`` block by an exception, dropping the writer,
    or ending the program without closing it aborts: the object at that key is what it was before, and no multipart
    upload is left behind. A wrapper that closes it after an exception (``io.TextIOWrapper``, ``io.BufferedWriter``)
    stores what was written until then: call ``abort`` before, where that is not wanted.

    Args:
        stream: the upload: anything with ``write(data)`` and ``close()``; with ``abort()``, it can be given up.

    Example:
        >>> with S3Checkpoint(region="us-east-1").writer("s3://bucket/epoch-1.pt") as writer:
        ...     torch.save(model.state_dict(), writer)
    """

    def __init__(self, stream: PutObjectStream) -> None:
        self.stream = stream
        self._position = 0

    def write(self, data: ReadableBuffer) -> int:
        """Write bytes to S3 Object specified by bucket and key

        Args:
            data: bytes to write; any bytes-like object. It may be changed as soon as this returns.

        Returns:
            Number of bytes written

        Raises:
            ValueError: the writer is closed.
            TypeError: ``data`` is not a bytes-like object.
            S3Exception: An error occurred accessing S3.
        """
        self._check_open()
        view = memoryview(data)
        if not view.c_contiguous:
            view = memoryview(view.tobytes())
        self.stream.write(data if isinstance(data, bytes) else view.cast("B") if view.nbytes else b"")
        self._position += view.nbytes
        return view.nbytes

    def close(self) -> None:
        """Close write-stream to S3. Ensures all bytes are written successfully.

        Raises:
            S3Exception: An error occurred accessing S3; the object is what it was before, unless the error says that
                this could not be looked up.
        """
        if not self.closed:
            try:
                self.stream.close()
            finally:
                super().close()

    def abort(self) -> None:
        """Give up: close without storing anything. The object is what it was before."""
        self._give_up(getattr(self.stream, "abort", None))

    def _give_up(self, abort: Callable[[], object] | None) -> None:
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
            self._give_up(self.stream.abort_later)
        else:
            self.abort()

    def __del__(self) -> None:
        # Not IOBase's finaliser, which closes and so would publish a torn object. The stream aborts itself when it
        # is dropped, which now happens.
        return

    def flush(self) -> None:
        """No-op"""

    def readable(self) -> bool:
        """
        Returns:
            Return whether object was opened for reading.
        """
        return False

    def writable(self) -> bool:
        """
        Returns:
            Return whether object was opened for writing.
        """
        return not self.closed

    def tell(self) -> int:
        """
        Returns:
            Current stream position; of a closed writer, how many bytes were written.
        """
        return self._position

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed S3 writer")
