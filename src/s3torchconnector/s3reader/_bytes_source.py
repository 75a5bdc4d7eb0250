"""An object that is only a stream of ``bytes``, as ``S3Reader`` needs it (``BytesByPosition``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any


class StreamedBytes:
    """An object known only as an iterable of ``bytes``, for readers that a program constructs with its own stream.

    The stream is consumed as far as reads need. Its bytes are kept, since reads may go back.
    """

    def __init__(self, get_stream: Callable[[], Iterable[bytes]], get_object_info: Callable[[], Any]) -> None:
        self._get_stream = get_stream
        self._get_object_info = get_object_info
        self._stream: Iterator[bytes] | None = None
        self._content = bytearray()
        self._ended = False

    def size(self) -> int:
        info = None if self._ended else self._get_object_info()
        if info is not None:
            return int(info.size)
        self._take_until(None)
        return len(self._content)

    def prefetch(self, likely_size: int | None = None, most: int | None = None) -> None:
        if self._stream is None:
            self._stream = iter(self._get_stream())

    def await_head(self) -> None:
        """A stream shows nothing before it is read."""

    def hand_out(self) -> int | None:
        return None

    def readinto(self, position: int, view: memoryview) -> int:
        data = self.read(position, len(view))
        view[: len(data)] = data
        return len(data)

    def read(self, position: int, count: int) -> bytes:
        self._take_until(position + count)
        return bytes(self._content[position : position + count])

    def read_to_end(self, position: int) -> bytes:
        self._take_until(None)
        return bytes(self._content[position:])

    def buffered(self, position: int) -> memoryview | bytes:
        return bytes(self._content[position : position + 65536])

    def close(self) -> None:
        self._stream = None

    def __reduce__(self) -> tuple[Any, ...]:
        return StreamedBytes, (self._get_stream, self._get_object_info)

    def _take_until(self, stop: int | None) -> None:
        self.prefetch()
        assert self._stream is not None
        while not self._ended and (stop is None or len(self._content) < stop):
            try:
                piece = next(self._stream, None)
            except BaseException:
                # A generator that raised would end when it is asked again. So the next read starts a new stream.
                self._stream = None
                self._content.clear()
                raise
            if piece is None:
                self._ended = True
            else:
                self._content += piece
