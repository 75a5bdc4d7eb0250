"""The index of a cache directory: opened, and made if there is none."""

from __future__ import annotations

import os

from s3torchconnector._cache._files import OpenFile, open_in, write_at
from s3torchconnector._cache._format import (
    HEADER_SIZE,
    INDEX_NAME,
    FutureVersionError,
    Geometry,
    NoIndexError,
    read_header,
)
from s3torchconnector._cache._space import Space

_PATIENCE = 2.0  # seconds that a process tries to get the lock when it opens a directory
_LOCKED = "another process, which may have been stopped, keeps its lock. It is tried again in a minute"
_ADVICE = "Delete the directory while nobody uses it, or give another one"


class UnusableError(Exception):
    """The directory cannot be used; the text says why, and what to do."""


def open_space(directory: OpenFile, max_bytes: int) -> tuple[OpenFile, Space, bool]:
    """The index of a directory, its segments, and whether they can be written. The limit holds from now on.

    Raises:
        OSError: the index cannot be read.
        UnusableError: see ``Store``.
    """
    index, is_writable = _open_index(directory)
    try:
        geometry = _geometry(directory, index, max_bytes, is_writable)
    except FutureVersionError as error:
        raise UnusableError(f"it was made by a later release: {error}. Use that, or give another directory") from error
    space = Space(directory, index, geometry, max_bytes)
    if is_writable:
        if geometry.segments(max_bytes) < 1:
            raise UnusableError(f"its index alone has {geometry.index_size} bytes. {_ADVICE}")
        if os.fstat(index.descriptor).st_size < geometry.index_size:
            os.ftruncate(index.descriptor, geometry.index_size)  # somebody has cut it off
        if not space.keep_limit(_PATIENCE):
            raise UnusableError(_LOCKED)
    return index, space, is_writable


def _open_index(directory: OpenFile) -> tuple[OpenFile, bool]:
    """The index, and whether it can be written."""
    try:
        return open_in(directory, INDEX_NAME, os.O_RDWR | os.O_CREAT), True
    except OSError:
        try:
            return open_in(directory, INDEX_NAME, os.O_RDONLY), False
        except OSError:
            pass
        raise


def _geometry(directory: OpenFile, index: OpenFile, max_bytes: int, is_writable: bool) -> Geometry:
    """What the index says, after it was made if there is none yet."""
    try:
        return read_header(os.pread(index.descriptor, HEADER_SIZE, 0))
    except NoIndexError as error:
        if not is_writable or not error.is_ours:
            raise UnusableError(f"its {INDEX_NAME} is no index of a cache: {error}. {_ADVICE}") from error
    # Made in place: until it is complete, other processes see zeros, and a process that is killed leaves zeros.
    lock = open_in(directory, INDEX_NAME, os.O_RDWR)
    if not lock.lock_within(_PATIENCE):
        raise UnusableError(_LOCKED)
    try:
        return read_header(os.pread(index.descriptor, HEADER_SIZE, 0))
    except NoIndexError:
        geometry = Geometry.of_limit(max_bytes)
        os.ftruncate(index.descriptor, geometry.index_size)
        Space(directory, index, geometry, max_bytes).initialise()
        write_at(index, 0, geometry.encoded())
        return geometry
    finally:
        lock.unlock()
