"""Waits for many sockets at a time, and wakes a waiting thread: also on Windows, which has no ``poll``.

Windows can only wait for sockets, so a pair of sockets is used instead of a pipe.
"""

from __future__ import annotations

import os
import select
import socket
import time
from typing import Protocol

POLLIN, POLLOUT = getattr(select, "POLLIN", 1), getattr(select, "POLLOUT", 4)


class HasDescriptor(Protocol):
    def fileno(self) -> int: ...


class Poll(Protocol):
    """What ``select.poll()`` returns; see https://docs.python.org/3/library/select.html#polling-objects."""

    def register(self, file: int | HasDescriptor, events: int, /) -> None: ...
    def unregister(self, file: int | HasDescriptor, /) -> None: ...
    def poll(self, milliseconds: float | None = None, /) -> list[tuple[int, int]]: ...


class SelectPoll:
    """The same by ``select.select``, for as many sockets as that takes: 512 on Windows."""

    def __init__(self) -> None:
        self._events: dict[int, int] = {}

    def register(self, file: int | HasDescriptor, events: int, /) -> None:
        self._events[_descriptor_of(file)] = events

    def unregister(self, file: int | HasDescriptor, /) -> None:
        del self._events[_descriptor_of(file)]

    def poll(self, milliseconds: float | None = None, /) -> list[tuple[int, int]]:
        """What is ready. Windows reports a failed connect as exceptional; here it is ready to be written to."""
        seconds = None if milliseconds is None or milliseconds < 0 else milliseconds / 1000
        reading = [descriptor for descriptor, events in self._events.items() if events & POLLIN]
        writing = [descriptor for descriptor, events in self._events.items() if events & POLLOUT]
        if not self._events and seconds is not None:  # Windows refuses to wait for nothing
            time.sleep(seconds)
            return []
        readable, writable, failed = select.select(reading, writing, writing, seconds)
        ready = dict.fromkeys(readable, POLLIN)
        for descriptor in {*writable, *failed}:
            ready[descriptor] = ready.get(descriptor, 0) | POLLOUT
        return list(ready.items())


def new_poll() -> Poll:
    """Something to wait for many sockets with."""
    return select.poll() if hasattr(select, "poll") else SelectPoll()


class PipeWakeup:
    """Wakes a thread that polls its descriptor.

    Raises:
        OSError: no descriptors are left.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)

    def fileno(self) -> int:
        return self._read

    def wake(self) -> None:
        os.write(self._write, b"\0")

    def clear(self) -> None:
        """Be ready for the next ``wake``."""
        os.read(self._read, 4096)

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


class SocketWakeup:
    """The same by a pair of sockets."""

    def __init__(self) -> None:
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)

    def fileno(self) -> int:
        return self._read.fileno()

    def wake(self) -> None:
        self._write.send(b"\0")

    def clear(self) -> None:
        self._read.recv(4096)

    def close(self) -> None:
        self._read.close()
        self._write.close()


def new_wakeup() -> PipeWakeup | SocketWakeup:
    """Something to wake a polling thread with."""
    return PipeWakeup() if hasattr(select, "poll") else SocketWakeup()


def _descriptor_of(file: int | HasDescriptor) -> int:
    return file if isinstance(file, int) else file.fileno()
