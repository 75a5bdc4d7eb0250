"""The index of a cache directory: opened, and made if there is none."""

from __future__ import annotations

import os

from s3torchconnector._cache._files import OpenFile, open_in, write_at
from s3torchconnector._cache._format import HEADER_SIZE, INDEX_NAME, Geometry, NoIndexError, read_header
from s3torchconnector._cache._space import Space

PATIENCE = 2.0  # seconds that a process waits for the lock when it opens a directory


class UnusableError(Exception):
    """The directory cannot be used; the text says why."""


def open_index(directory: OpenFile) -> tuple[OpenFile, bool]:
    """The index, and whether it can be written."""
    try:
        return open_in(directory, INDEX_NAME, os.O_RDWR | os.O_CREAT), True
    except OSError:
        try:
            return open_in(directory, INDEX_NAME, os.O_RDONLY), False
        except OSError:
            pass
        raise


def geometry_of(directory: OpenFile, index: OpenFile, max_bytes: int, is_writable: bool) -> Geometry:
    """What the index says, after it was made if there is none yet."""
    try:
        return read_header(os.pread(index.descriptor, HEADER_SIZE, 0))
    except NoIndexError as error:
        if not is_writable or not error.is_ours:
            raise UnusableError(f"its {INDEX_NAME} is no index of a cache: {error}") from error
    # Made in place: whoever looks meanwhile sees zeros, and whoever is killed meanwhile leaves them.
    lock = open_in(directory, INDEX_NAME, os.O_RDWR)
    if not lock.lock_within(PATIENCE):
        raise UnusableError("another process keeps its lock")
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
