"""One object of one client, as readers and custom reader constructors get it.

``ObjectSource`` is their ``get_stream``. A call returns a stream (``GetObjectStream``, the documented type); our own
reader opens it for random access instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from s3torchconnector._config import MIB
from s3torchconnector._late_imports import no_fork
from s3torchconnector._progress import Progress, is_shown_here
from s3torchconnector._transfer.engine._runtime import OpenRuntime
from s3torchconnector._transfer.reading._object_reader import ObjectReader
from s3torchconnector._transfer.reading._object_version import ObjectVersion
from s3torchconnector._transfer.reading._read_policy import SEQUENTIAL, ReadPolicy
from s3torchconnector._types import ObjectInfo
from s3torchconnector._uri import display_uri

_AT_A_TIME = 1 * MIB


class BytesByPosition(Protocol):
    """Random access to an object's bytes. ``ObjectReader`` says what each method does."""

    def size(self) -> int: ...
    def prefetch(self, likely_size: int | None = None, most: int | None = None) -> None: ...
    def await_head(self) -> None: ...
    def hand_out(self) -> int | None: ...
    def readinto(self, position: int, view: memoryview) -> int: ...
    def read(self, position: int, count: int) -> bytes: ...
    def read_to_end(self, position: int) -> bytes: ...
    def buffered(self, position: int) -> memoryview | bytes: ...
    def close(self) -> None: ...


class GetObjectStream(Iterator[bytes]):
    """An object's bytes in order, as ``bytes`` of at most 1 MiB; reads ahead in the background.

    Attributes:
        bucket, key: the object.
    """

    def __init__(self, bucket: str, key: str, reader: BytesByPosition, start: int = 0, stop: int | None = None) -> None:
        self.bucket = bucket
        self.key = key
        self._reader = reader
        self._position = start
        self._stop = stop

    def __next__(self) -> bytes:
        count = _AT_A_TIME if self._stop is None else min(_AT_A_TIME, self._stop - self._position)
        data = self._reader.read(self._position, count) if count > 0 else b""
        if not data:
            self._reader.close()
            raise StopIteration
        self._position += len(data)
        return data

    def tell(self) -> int:
        """The position in the object of the next byte."""
        return self._position


class ObjectSource:
    """One object, to be opened in a way of the reader's choice.

    Attributes:
        shows_progress: whether the reading of a large object is shown, as for checkpoints.
    """

    shows_progress = False

    def __init__(
        self,
        open_runtime: OpenRuntime,
        bucket: str,
        key: str,
        listed: ObjectInfo | None = None,
        version_id: str | None = None,
    ) -> None:
        self._open_runtime = open_runtime
        self._bucket = bucket
        self._key = key
        self._version_id = version_id
        self._listed_size = listed.size if listed is not None else None

    def __call__(self, start: int | None = None, end: int | None = None) -> GetObjectStream:
        """Stream bytes ``start`` up to but without ``end``."""
        return GetObjectStream(self._bucket, self._key, self.open(SEQUENTIAL, end), start or 0, end)

    def open(self, policy: ReadPolicy, limit: int | None = None) -> BytesByPosition:
        """Random access; see ``ObjectReader``."""
        switch = self._open_runtime().config.progress if self.shows_progress else False
        if is_shown_here(switch):
            with no_fork:
                from s3torchconnector._transfer.reading._counted_object import CountedReader, CountedVersion

            progress = Progress(switch, f"reading {display_uri(self._bucket, self._key)}")
            counted = CountedVersion(self._bucket, self._key, progress, self._version_id)
            return CountedReader(self._open_runtime, counted, policy, self._listed_size, limit)
        version = ObjectVersion(self._bucket, self._key, version_id=self._version_id)
        return ObjectReader(self._open_runtime, version, policy, self._listed_size, limit)
