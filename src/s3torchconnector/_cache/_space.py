"""The segments of a cache directory, and the processes that write to them.

The limit holds at every moment: the state counts a segment, with its full size, before its file is created, and the
file is deleted before the state stops counting it. A process that changes the state holds a kernel lock on the index,
and a process that writes to a segment holds one on the segment. The kernel releases these locks when their owner ends
for any reason. A process waits for a lock no longer than ``_PATIENCE``: the owner may have been stopped.

Segments that have not been used for ``_IN_USE`` are deleted to make room, the oldest first. If all are in use, nothing
more is stored: if a cache holds half of a dataset, half of each epoch comes from it. If new objects always replaced old
ones, it would be only a fifth.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from s3torchconnector._cache._files import OpenFile, open_in
from s3torchconnector._cache._format import (
    INDEX_NAME,
    STATE_AT,
    STATE_SIZE,
    Geometry,
    State,
    is_of_this_boot,
    read_state,
    segment_name,
    segment_number,
    this_boot,
)

_PATIENCE = 0.5  # seconds
_IN_USE = 900.0  # seconds since something was read from a segment, or written to it
_TOUCHED = 60.0  # seconds after which reading from a segment is noted again
_LOOKED_AT = 64  # the newest segments, one of which another process may have left with room


@dataclass
class Segment:
    """A segment that this process alone writes to, as long as ``file`` is open.

    Attributes:
        file: it, locked.
        number: its number.
        end: where the next record goes.
    """

    file: OpenFile
    number: int
    end: int

    @property
    def is_deleted(self) -> bool:
        """Whether it has made room for another one."""
        return os.fstat(self.file.descriptor).st_nlink == 0


class Space:
    """The segments of a directory.

    Args:
        directory, index: the directory and its index.
        geometry: of the index.
        max_bytes: the limit that this process knows of.
    """

    def __init__(self, directory: OpenFile, index: OpenFile, geometry: Geometry, max_bytes: int) -> None:
        self._directory = directory
        self._index = index
        self.geometry = geometry
        self._max_bytes = max_bytes
        self._locked_file: OpenFile | None = None
        self._touched: dict[int, float] = {}

    def touch(self, file: OpenFile, number: int) -> None:
        """Note that a segment is in use, unless this process has done so lately."""
        now = time.monotonic()
        if now >= self._touched.get(number, 0.0):
            self._touched[number] = now + _TOUCHED
            os.utime(file.descriptor)

    def forget_parent(self) -> None:
        """In a forked child: a lock that another thread had is the parent's."""
        self._locked_file = None

    def initialise(self) -> None:
        """Write the state of a new index, which the caller has locked. Existing segments are kept if they fit."""
        state = self.state() or State(0, 0, 0, 0, 0)
        self._write(self._counted(state._replace(max_bytes=self._max_bytes)))

    def state(self) -> State | None:
        """The state as it is now; None if it is damaged, or just being written."""
        return read_state(os.pread(self._index.descriptor, STATE_SIZE, STATE_AT))

    def take(self, size: int) -> Segment | None:
        """A segment with room for ``size`` bytes, which nobody else writes to.

        None if there is no room that is not in use, or others keep the lock.

        Raises:
            OSError: the directory cannot be written.
        """
        with self._locked(_PATIENCE) as locked:
            if not locked:
                return None
            state = self.state()
            if state is None or (this_boot() and not is_of_this_boot(state.boot)):
                state = self._counted(state)
            return self._left_by_others(state, size) or self._created(state)

    def keep_limit(self, patience: float) -> bool:
        """Have the directory keep to the limit of this process, or a smaller one. False if others keep the lock.

        Raises:
            OSError: the directory cannot be written.
        """
        state = self.state()
        if state is not None and state.max_bytes <= self._max_bytes and is_of_this_boot(state.boot):
            return True
        with self._locked(patience) as locked:
            if locked:
                self._write(self._counted(self.state()))
            return locked

    def clear(self, patience: float) -> bool:
        """Delete all segments. False if others keep the lock.

        Raises:
            OSError: the directory cannot be written.
        """
        with self._locked(patience) as locked:
            if locked:
                for number in self.segments():
                    self._delete(number)
                self._write(self._counted(self.state()))
            return locked

    def segments(self) -> list[int]:
        """The numbers of the segments that there are, the oldest first."""
        numbers = (segment_number(name) for name in os.listdir(self._directory.descriptor))
        return sorted(number for number in numbers if number is not None)

    @contextlib.contextmanager
    def _locked(self, patience: float) -> Iterator[bool]:
        """The lock of the directory; False if others have kept it for ``patience`` seconds."""
        # Opened again: a lock belongs to an open file, and threads must exclude each other, too.
        file = self._locked_file = open_in(self._directory, INDEX_NAME, os.O_RDWR)
        locked = False
        try:
            locked = file.lock_within(patience)
            if locked and not os.path.samestat(os.fstat(file.descriptor), os.fstat(self._index.descriptor)):
                raise OSError(errno.ESTALE, "the directory was emptied, and has another index now")
            yield locked
        finally:
            self._locked_file = None
            if locked:
                file.unlock()

    def _counted(self, state: State | None) -> State:
        """The state computed from the existing files, if the stored one may be wrong, or if the limit has changed.

        Those beyond the limit are deleted, the oldest first, in use or not.
        """
        state = state or State(0, 0, 0, self.geometry.made_for, 0)
        state = state._replace(max_bytes=min(state.max_bytes, self._max_bytes), boot=this_boot())
        numbers = self.segments()
        begin = numbers[-1] + 1 if numbers else time.time_ns() >> 20  # no number is used again
        too_many = max(0, len(numbers) - self.geometry.segments(state.max_bytes))
        for number in numbers[:too_many]:
            self._delete(number)
        return state._replace(
            next=max(state.next, begin), segments=len(numbers) - too_many, evictions=state.evictions + too_many
        )

    def _left_by_others(self, state: State, size: int) -> Segment | None:
        """A segment with room for ``size`` bytes that the process that wrote to it has left."""
        for number in range(state.next - 1, max(0, state.next - _LOOKED_AT) - 1, -1):
            try:
                file = open_in(self._directory, segment_name(number), os.O_RDWR)
            except FileNotFoundError:
                continue
            end = os.fstat(file.descriptor).st_size
            if end + size <= self.geometry.segment_size and file.try_lock():
                return Segment(file, number, end)
        return None

    def _created(self, state: State) -> Segment | None:
        if state.segments >= self.geometry.segments(state.max_bytes):
            state = self._with_room(state)
            if state.segments >= self.geometry.segments(state.max_bytes):
                return None
        number = state.next
        self._write(state._replace(next=number + 1, segments=state.segments + 1))  # reserved
        file = open_in(self._directory, segment_name(number), os.O_RDWR | os.O_CREAT | os.O_EXCL)
        file.try_lock()
        return Segment(file, number, 0)

    def _with_room(self, state: State) -> State:
        """The state after the oldest segment that is not in use was deleted, if there is one."""
        numbers, before = self.segments(), time.time() - _IN_USE
        state = state._replace(segments=len(numbers))
        if state.segments >= self.geometry.segments(state.max_bytes):
            for number in numbers:
                if os.stat(segment_name(number), dir_fd=self._directory.descriptor).st_mtime < before:
                    self._delete(number)
                    return state._replace(segments=state.segments - 1, evictions=state.evictions + 1)
        return state

    def _delete(self, number: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(segment_name(number), dir_fd=self._directory.descriptor)

    def _write(self, state: State) -> None:
        os.pwrite(self._index.descriptor, state.encoded(), STATE_AT)
