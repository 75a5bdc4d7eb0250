"""A cache directory that one process has open: finds, loads and stores records.

The files are read and written by their descriptors, and not mapped: a failing disk or a truncated file is then an
``OSError`` and does not end the process. Segments are opened for each record: an open descriptor would keep the disk
space of a deleted segment.
"""

from __future__ import annotations

import errno
import os
import time
from threading import Lock
from weakref import WeakSet

from s3torchconnector._cache._files import OpenFile, open_in, read_at, write_at
from s3torchconnector._cache._format import (
    BUCKET_SIZE,
    HEADER_SIZE,
    RECORD_HEAD,
    Entry,
    Geometry,
    bucket_at,
    count_entries,
    encode_entry,
    encode_record_head,
    find,
    is_of_this_boot,
    place_for,
    read_record_head,
    segment_name,
    this_boot,
)
from s3torchconnector._cache._index import open_space
from s3torchconnector._cache._pace import Pace
from s3torchconnector._cache._space import Segment
from s3torchconnector._config import MIB

_COUNTED = 4 * MIB  # of the table: entries are spread evenly
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 64.0  # seconds without adding, after others have kept the lock

_stores: WeakSet[Store] = WeakSet()


class DamagedError(Exception):
    """The bytes of a record are not those that were stored."""


class Store:
    """A directory.

    Args:
        path: where it is; it is made if it is not there.
        max_bytes: its limit, unless the directory has a smaller one.
        always_verify: whether every record is compared with its checksum; if not, only those that were written
            before the machine was restarted.

    Raises:
        OSError: the directory or its index cannot be opened.
        UnusableError: the index is of a later release, or none; it has no room in the limit; or others keep its lock.
    """

    def __init__(self, path: str, max_bytes: int, *, always_verify: bool = False) -> None:
        os.makedirs(path, mode=0o700, exist_ok=True)
        self._directory = OpenFile(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        self._index, self.space, self.is_writable = open_space(self._directory, max_bytes)
        self._always_verify = always_verify
        self._segment: Segment | None = None
        self._lock = Lock()  # of ``_segment``
        self._adds_from = 0.0  # by ``time.monotonic``
        self._pause = _SHORTEST_PAUSE
        self._pace = Pace()
        _stores.add(self)

    @property
    def geometry(self) -> Geometry:
        """The sizes of its files."""
        return self.space.geometry

    def forget_parent(self) -> None:
        """In a forked child: the segment is the parent's."""
        self._segment, self._lock = None, Lock()
        self.space.forget_parent()

    def find(self, digest: bytes) -> Entry | None:
        """Where the bytes of ``digest`` may lie.

        Raises:
            OSError: the index cannot be read.
        """
        return find(self._bucket(digest), digest)

    def load(self, digest: bytes, entry: Entry) -> bytes | None:
        """The bytes, if they lie where the entry says.

        Raises:
            OSError: they cannot be read.
            DamagedError: they are not the bytes that were stored. They are not found again.
        """
        try:
            file = open_in(self._directory, segment_name(entry.segment), os.O_RDONLY)
        except FileNotFoundError:
            return None  # it made room
        head = read_record_head(os.pread(file.descriptor, RECORD_HEAD, entry.offset), digest)
        is_compared = head is None or self._always_verify or not is_of_this_boot(head.boot)
        if head is None or head.length != entry.length or (is_compared and head.algorithm is None):
            self.forget(digest)  # or else it would not be stored again
            return None
        data = read_at(file, entry.offset + RECORD_HEAD, head.length)
        if len(data) != head.length or (is_compared and not head.is_of(data)):
            self.forget(digest)
            raise DamagedError(f"{segment_name(entry.segment)} at byte {entry.offset}")
        if self.is_writable:
            self.space.touch(file, entry.segment)
        return data

    def expect(self, entry: Entry) -> None:
        """``load`` will be called: the disk may begin."""
        if hasattr(os, "posix_fadvise"):  # not on macOS
            try:
                file = open_in(self._directory, segment_name(entry.segment), os.O_RDONLY)
            except FileNotFoundError:
                return
            size = RECORD_HEAD + entry.length
            os.posix_fadvise(file.descriptor, entry.offset, size, os.POSIX_FADV_WILLNEED)

    def add(self, digest: bytes, data: bytes | memoryview) -> bool:
        """Store bytes, unless they are there or too large, there is no room, others keep the lock, or the disk is slow.

        Returns whether they were stored.

        Raises:
            OSError: they cannot be stored.
        """
        size = RECORD_HEAD + len(data)
        before = time.monotonic()
        if not self.is_writable or size > self.geometry.segment_size:
            return False
        if before < self._adds_from or not self._pace.allows(before):
            return False
        if self._is_stored(self.find(digest), len(data)):
            return False
        place = self._place_for(size)
        if place is None:
            return False
        segment, offset = place
        write_at(segment.file, offset + RECORD_HEAD, data)
        write_at(segment.file, offset, encode_record_head(digest, data, this_boot()))
        entry = Entry(segment.number, offset, len(data))  # last: what it leads to is there
        at = bucket_at(digest, self.geometry) + place_for(self._bucket(digest), digest, os.getpid())
        write_at(self._index, at, encode_entry(digest, entry))
        self._pace.note(time.monotonic() - before, size)
        return True

    def _bucket(self, digest: bytes) -> bytes:
        bucket = os.pread(self._index.descriptor, BUCKET_SIZE, bucket_at(digest, self.geometry))
        if len(bucket) != BUCKET_SIZE:
            raise OSError(errno.EIO, "the index was truncated")
        return bucket

    def stats(self) -> dict[str, int]:
        """What the directory holds.

        Raises:
            OSError: the index cannot be read.
        """
        state, segments = self.space.state(), self.space.segments()
        size = self.geometry.buckets * BUCKET_SIZE
        part = os.pread(self._index.descriptor, min(size, _COUNTED), HEADER_SIZE)
        return {
            "entries": count_entries(part, segments) * size // max(1, len(part)),
            "bytes": self.geometry.index_size + len(segments) * self.geometry.segment_size,
            "evictions": 0 if state is None else state.evictions,
        }

    def _place_for(self, size: int) -> tuple[Segment, int] | None:
        """A segment of this process, and where in it there is room for a record."""
        with self._lock:
            segment = self._segment
            if segment is None or segment.end + size > self.geometry.segment_size or segment.is_deleted:
                self._segment = None  # its lock ends
                segment = self._segment = self.space.take(size)
                if segment is None:  # the owner of the lock may have been stopped: repeated waits must not add up
                    self._adds_from = time.monotonic() + self._pause
                    self._pause = min(2 * self._pause, _LONGEST_PAUSE)
                    return None
                self._pause = _SHORTEST_PAUSE
            offset = segment.end
            segment.end += size
            return segment, offset

    def _is_stored(self, entry: Entry | None, length: int) -> bool:
        if entry is None or entry.length != length:
            return False
        try:
            found = os.stat(segment_name(entry.segment), dir_fd=self._directory.descriptor)
        except FileNotFoundError:
            return False
        return found.st_size >= entry.offset + RECORD_HEAD + length

    def forget(self, digest: bytes) -> None:
        """Have ``digest`` not be found any more.

        Raises:
            OSError: the index cannot be written.
        """
        at = bucket_at(digest, self.geometry)
        if self.is_writable:
            place = place_for(self._bucket(digest), digest)
            write_at(self._index, at + place, bytes(len(encode_entry(digest, Entry(0, 0, 0)))))


def _leave_all_to_parent() -> None:
    for store in list(_stores):
        store.forget_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all_to_parent)
