"""Sections that no fork may interrupt: a fork waits until no thread is in one, and a thread waits to enter during a
fork.

A child has only the thread that forked, and everything else as it was at that moment. If another thread held a lock,
nothing releases it in the child, and the child waits forever as soon as it needs the lock. This is the case for

- the lock of a module that is being imported: ``with no_fork: import ...``;
- a lock of OpenSSL, of the whole process, which a thread takes when it first uses OpenSSL, and again when it ends,
  after the last line of Python (``OSSL_LIB_CTX``'s list of threads). So our threads use it once before anything else,
  and a fork waits until the system says that they are gone: ``begin_thread``, ``end_thread``.
  https://docs.openssl.org/3.0/man3/OPENSSL_init_crypto/ (OPENSSL_thread_stop)

None of our locks is held meanwhile. A thread that waited for it could hold the lock of a module that an import needs,
and both would wait forever. Instead, running sections are counted by atomic operations on built-in types, and each side
checks the other after it has announced itself.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import sys
import time
from threading import get_ident, get_native_id
from types import FrameType
from typing import NamedTuple

from s3torchconnector._latch import Latch
from s3torchconnector._platform import at_fork

_TIMEOUT = 10.0  # seconds that a fork waits: the thread that forks may hold what an import waits for
_LOOK_AGAIN = 0.1  # seconds after which a fork looks again: an interrupt may have kept an import from waking it
_MOST_TO_END = 1.0  # seconds that a fork waits for threads whose function has returned
_LOOK_FOR_END = 0.0002  # seconds after which it looks again: the system sends no notice
_MANY = 256  # ended threads, after which those that are gone are forgotten
_TASKS = "/proc/self/task"  # of Linux; elsewhere, programs are told not to fork


class _Section(NamedTuple):
    """A section that has begun: its thread, and the frame of its function."""

    thread: int
    frame: FrameType

    def is_running(self) -> bool:
        """Whether its function is. An interrupt can end the function before the section's end is noted."""
        frame = sys._current_frames().get(self.thread)
        while frame is not None and frame is not self.frame:
            frame = frame.f_back
        return frame is not None


_importing: list[_Section] = []
_forking: dict[int, Latch] = {}  # the threads that fork, and what is opened afterwards
_waiting: dict[int, Latch] = {}  # the threads that want to fork, and what is opened after each import
_ending: dict[int, None] = {}  # the threads whose function has returned, by the numbers that the system gives them


class _NoFork:
    """Keeps other threads from forking. If one forks already, waits for it as long as forks wait for imports."""

    def __enter__(self) -> None:
        me, until = _Section(get_ident(), sys._getframe(1)), time.monotonic() + _TIMEOUT
        while True:
            try:
                _importing.append(me)
                fork = next((over for thread, over in _forking.copy().items() if thread != me.thread), None)
                if fork is None or (left := until - time.monotonic()) <= 0:
                    return
            except BaseException:  # an interrupt: without ``__enter__`` there is no ``__exit__``
                _end_import(me)
                raise
            _end_import(me)
            fork.wait(left)

    def __exit__(self, *_: object) -> None:
        _end_import(_Section(get_ident(), sys._getframe(1)))


no_fork = _NoFork()


def begin_thread() -> None:
    """Called by each of our threads first: it uses OpenSSL for the first time, while none forks."""
    with no_fork:
        _ending.pop(get_native_id(), None)  # of a thread that had the same number
        hmac.digest(b"-", b"-", "sha256")


def end_thread() -> None:
    """Called by each of our threads last. From now on, a fork waits until the system has ended it."""
    with no_fork:
        if len(_ending) >= _MANY:
            _forget_ended()
        _ending[get_native_id()] = None


def _forget_ended() -> None:
    for thread in list(_ending):
        if not os.path.exists(f"{_TASKS}/{thread}"):
            _ending.pop(thread, None)


def _wait_for_ends() -> None:
    until = time.monotonic() + _MOST_TO_END
    while _ending:
        _forget_ended()
        if not _ending or time.monotonic() >= until:
            break
        time.sleep(_LOOK_FOR_END)
    _ending.clear()  # a thread that took longer is another one, with its number


def _end_import(section: _Section) -> None:
    _forget(section)
    for changed in list(_waiting.values()):
        changed.open()


def _forget(section: _Section) -> None:
    with contextlib.suppress(ValueError):
        _importing.remove(section)


def _others_import(me: int) -> bool:
    for section in list(_importing):
        if section.thread != me:
            if section.is_running():
                return True
            _forget(section)
    return False


def _before_fork() -> None:
    me, until = get_ident(), time.monotonic() + _TIMEOUT
    while True:
        changed = _waiting[me] = Latch()
        over = _forking[me] = Latch()
        if not _others_import(me) or (left := until - time.monotonic()) <= 0:
            _wait_for_ends()
            return
        del _forking[me]  # others may import while this waits: their imports may be what those wait for
        over.open()
        changed.wait(min(left, _LOOK_AGAIN))


def _after_fork_in_parent() -> None:
    me = get_ident()
    _waiting.pop(me, None)
    over = _forking.pop(me, None)
    if over is not None:
        over.open()


def _after_fork_in_child() -> None:
    me = get_ident()
    _importing[:] = [section for section in _importing if section.thread == me]  # the other threads are the parent's
    _forking.clear()
    _waiting.clear()
    _ending.clear()


at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
