"""Files of a cache: by their descriptors, below one of the directory, and locked by the kernel."""

from __future__ import annotations

import errno
import os
import time
from functools import cache
from typing import Any

from s3torchconnector._late_imports import no_fork

_SLEEP = 0.001  # seconds between two attempts to get a lock


class OpenFile:
    """A descriptor that is closed with this object."""

    _close = staticmethod(os.close)  # the module's names may be gone when the interpreter ends

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        self._close(self.descriptor)

    def try_lock(self) -> bool:
        """Lock the file, unless it is opened and locked elsewhere."""
        fcntl = _fcntl()
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return False
            raise
        return True

    def lock_within(self, seconds: float) -> bool:
        """``try_lock``, again and again for so long."""
        until = time.monotonic() + seconds
        while not self.try_lock():
            if time.monotonic() >= until:
                return False
            time.sleep(_SLEEP)
        return True

    def unlock(self) -> None:
        """End the lock, also that of a child that was forked meanwhile."""
        fcntl = _fcntl()
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)


@cache
def _fcntl() -> Any:
    with no_fork:
        import fcntl

    return fcntl


def open_in(directory: OpenFile, name: str, flags: int) -> OpenFile:
    """Open a file of the directory."""
    return OpenFile(os.open(name, flags | os.O_CLOEXEC, 0o600, dir_fd=directory.descriptor))


def read_at(file: OpenFile, at: int, size: int) -> bytes:
    """So many bytes of a file, or as many as there are."""
    data = os.pread(file.descriptor, size, at)
    while 0 < len(data) < size:  # a signal may end a call early
        more = os.pread(file.descriptor, size - len(data), at + len(data))
        if not more:
            break
        data += more
    return data


def write_at(file: OpenFile, at: int, data: bytes | memoryview) -> None:
    """Write all of ``data``."""
    done = os.pwrite(file.descriptor, data, at)
    while done < len(data):
        done += os.pwrite(file.descriptor, memoryview(data)[done:], at + done)
