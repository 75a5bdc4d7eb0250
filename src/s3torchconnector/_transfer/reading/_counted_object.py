"""An object whose reading is counted, so that its progress can be shown. Readers of datasets have nothing of this."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from s3torchconnector._config import MIB
from s3torchconnector._progress import Progress
from s3torchconnector._transfer.engine._ranges import Range
from s3torchconnector._transfer.reading._object_reader import ObjectReader
from s3torchconnector._transfer.reading._object_version import ObjectVersion
from s3torchconnector._wire import Caller, CancelToken, Exchange, Request, Response

_T = TypeVar("_T")
_SMALL = 8 * MIB  # bytes, the reading of which is never shown
_PAUSE = 5.0  # seconds without a request, after which the program has done something else


class CountedVersion(ObjectVersion):
    """Counts the bytes of each request that is done, unless there are few in all. Copies of it do not, and neither do
    those of forked children."""

    def __init__(self, bucket: str, key: str, progress: Progress, version_id: str | None = None) -> None:
        super().__init__(bucket, key, version_id=version_id)
        self.progress = progress
        self._under_way: list[None] = []
        self._paused = time.monotonic()

    def call(
        self,
        caller: Caller,
        request: Callable[[], Request],
        consume: Callable[[Response], _T],
        cancel: CancelToken | None = None,
        sent: Exchange | None = None,
    ) -> _T:
        """``ObjectVersion.call``."""
        if not self._under_way and time.monotonic() - self._paused > _PAUSE:
            self.progress.restart()
        self._under_way.append(None)
        try:
            received = super().call(caller, request, consume, cancel, sent)
        finally:
            self._under_way.pop()
            self._paused = time.monotonic()
        if isinstance(received, Range) and (self.progress.total or self.size or 0) > _SMALL:
            if self.progress.total is None:
                self.progress.total = self.size
            self.progress.advance(received.size)
        return received


class CountedReader(ObjectReader):
    """An ``ObjectReader`` of a ``CountedVersion``, whose end is the end of its progress."""

    def close(self) -> None:
        """Cancel running requests, free all memory, and stop showing progress."""
        super().close()
        version = self.__dict__.get("_version")  # absent if the constructor failed
        if isinstance(version, CountedVersion):  # not in a forked child
            version.progress.close()
