"""``S3Cache``: objects kept on a local disk, for all processes of a node."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, TypeVar

from s3torchconnector._cache._format import SMALLEST_LIMIT, Entry
from s3torchconnector._cache._index import UnusableError
from s3torchconnector._cache._store import DamagedError, Store
from s3torchconnector._cache._tally import CacheTally
from s3torchconnector._errors import S3ConfigurationError

__all__ = ["S3Cache"]

_log = logging.getLogger(__name__)
_PAUSE = 60.0  # seconds without the cache after an error of the disk
_PATIENCE = 10.0  # seconds that ``clear`` tries to get the lock
_T = TypeVar("_T")


class S3Cache:
    """A directory on a local disk in which datasets keep what they have read, for the next epoch or job.

    Any number of datasets, processes and jobs of one user may use a directory at the same time. What is stored is
    identified by bucket, key, ETag and range, so it never becomes outdated. The directory is never larger than
    ``max_bytes``; what was stored first is deleted first.

    The cache never stops training: if the directory cannot be used, is full or damaged, one warning is logged, and
    objects come from S3. No process waits for another. A process that is killed leaves nothing that is wrong, or that
    others have to clean up.

    Args:
        path: a directory that is used for nothing else, on a disk of the node. It is created if it does not exist. Do
            not use a network file system: locks are not reliable there.
        max_bytes: the size that the directory may have, at least 1 MiB. If the directory was created with a smaller
            limit, that one applies, with a warning. If it was created with a larger one, yours applies from now on.
        always_verify: compare every object with its checksum when it is read. By default, that is done with what was
            stored before the machine was restarted.

    Raises:
        S3ConfigurationError: ``max_bytes`` is too small, or this system has no ``fcntl`` (Windows).

    Example:
        >>> import tempfile
        >>> from s3torchconnector import S3Cache, S3DataLoader, S3StreamingDataset
        >>> cache = S3Cache(tempfile.mkdtemp(), max_bytes=100 * 2**20)
        >>> dataset = S3StreamingDataset(
        ...     "s3://my-bucket/images/", region="us-east-1", transform=lambda reader: len(reader.read()), cache=cache
        ... )
        >>> for epoch in range(2):
        ...     sizes = list(S3DataLoader(dataset))
        >>> cache.stats()["hits"], cache.stats()["misses"]
        (3, 3)
    """

    def __init__(self, path: str | os.PathLike[str], max_bytes: int, *, always_verify: bool = False) -> None:
        if find_spec("fcntl") is None:
            raise S3ConfigurationError("S3Cache needs the locks of fcntl, which this system does not have (Windows)")
        if type(max_bytes) is not int or max_bytes < SMALLEST_LIMIT:
            raise S3ConfigurationError(
                f"max_bytes must be a whole number from {SMALLEST_LIMIT} (1 MiB) on: max_bytes={max_bytes!r}"
            )
        self._path = os.path.abspath(os.fspath(path))
        self._max_bytes = max_bytes
        self._always_verify = always_verify
        self._tally = CacheTally()
        self._has_warned = False
        self._start_afresh()
        self._opened()

    def _start_afresh(self) -> None:
        self._store: Store | None = None
        self._opens_from = 0.0  # by ``time.monotonic``

    @property
    def path(self) -> str:
        """The directory."""
        return self._path

    @property
    def max_bytes(self) -> int:
        """The size that the directory may have, as it was given."""
        return self._max_bytes

    def stats(self) -> dict[str, int]:
        """What the cache has done and holds.

        Returns:
            ``hits`` and ``misses``, the objects that were found or not, and ``hit_bytes``; of this object, in all
            processes that it was forked or sent to. Of the directory: ``entries``, how many objects it holds (estimated
            from 4 MiB of the index if that is larger); ``bytes``, the size that is reserved; ``evictions``, how many
            segments were deleted to make room.
        """
        of_directory = self._with_store(Store.stats) or {"entries": 0, "bytes": 0, "evictions": 0}
        return {**self._tally.totals(), **of_directory}

    def clear(self) -> None:
        """Delete what is stored. Processes that use the directory continue, and store objects again.

        Raises:
            OSError: the directory cannot be written.
            TimeoutError: another process, which may have been stopped, holds the lock of the directory.
        """
        store = self._opened()
        if store is None:
            raise OSError(f"the cache directory {self._path} cannot be used: see the warning in the log")
        if not store.space.clear(_PATIENCE):
            raise TimeoutError(f"another process keeps the lock of the cache directory {self._path}")

    # -- for readers --------------------------------------------------------------------------------------------------

    def _find(self, digest: bytes, size: int) -> Entry | None:
        """Where something of this size lies, if it is probably there."""
        store = self._store or self._opened()
        try:
            entry = None if store is None else store.find(digest)
        except OSError as error:
            entry = None
            self._give_up(error)
        if entry is None or entry.length != size:
            self._tally.miss()
            return None
        self._tally.hit(size)
        return entry

    def _load(self, digest: bytes, entry: Entry) -> bytes | None:
        """What ``_find`` has found; None if it is not there after all."""
        data = self._with_store(lambda store: store.load(digest, entry))
        if data is None:
            self._tally.hit(entry.length, -1)
            self._tally.miss()
        return data

    def _expect(self, entry: Entry) -> None:
        """``_load`` will be called: the disk may begin."""
        self._with_store(lambda store: store.expect(entry))

    def _add(self, digest: bytes, data: bytes | memoryview) -> None:
        """Store something, if that is possible now."""
        self._with_store(lambda store: store.add(digest, data))

    def _forget(self, digest: bytes) -> None:
        """Find something no more, until it is stored again."""
        self._with_store(lambda store: store.forget(digest))

    # -- what may go wrong --------------------------------------------------------------------------------------------

    def _with_store(self, action: Callable[[Store], _T]) -> _T | None:
        """What an action returns; None if the directory cannot be used now."""
        store = self._store or self._opened()
        if store is None:
            return None
        try:
            return action(store)
        except DamagedError as error:
            self._warn("it holds damaged data, which is fetched again (%s)", error)
        except OSError as error:
            self._give_up(error)
        return None

    def _give_up(self, error: OSError) -> None:
        self._warn("%s. It is not used for a minute", error)
        self._pause()

    def _pause(self) -> None:
        self._store = None  # what was opened may be of a disk that is gone
        self._opens_from = time.monotonic() + _PAUSE

    def _opened(self) -> Store | None:
        if self._store is None and time.monotonic() >= self._opens_from:
            try:
                self._store = self._open()
            except UnusableError as error:
                self._warn("%s", error)
                self._pause()
            except OSError as error:
                self._give_up(error)
        return self._store

    def _open(self) -> Store:
        store = Store(self._path, self._max_bytes, always_verify=self._always_verify)
        if not store.is_writable:
            self._warn("it cannot be written, and is only read")
        state = store.space.state()
        if state is not None and state.max_bytes < self._max_bytes:
            self._warn(
                "it keeps to the max_bytes=%d that it was made with, less than %d. To have more, delete the directory",
                state.max_bytes,
                self._max_bytes,
            )
        return store

    def _warn(self, text: str, *values: object) -> None:
        """Log a warning: the first one. Workers do not repeat what their parent has said."""
        level = logging.DEBUG if self._has_warned else logging.WARNING
        self._has_warned = True
        _log.log(level, f"The cache directory %s: {text}", self._path, *values)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_store": None, "_opens_from": 0.0}

    def __repr__(self) -> str:
        return f"S3Cache({self._path!r}, max_bytes={self._max_bytes})"
