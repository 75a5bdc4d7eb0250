"""When a checkpoint may be removed: at once, or only when a newer one is there. Pure; no I/O.

Lightning's ``AsyncCheckpointIO`` stores on a thread of its own, one checkpoint after the other, and hands removals on
at once: what replaces a checkpoint may still wait or be under way then, and so may the checkpoint itself. So a removal
that comes from another thread than the saves waits until another checkpoint is there whose save began after this one's
had ended. Then there is always one, since the newest of all never goes.
"""

from __future__ import annotations

import threading
from typing import Any


class Removals:
    """What was stored, in which order, and which removals wait. For any threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._savers: set[int] = set()  # the threads that have saved
        self._has_loaded = False
        self._saves = 0  # that have ended
        self._under_way: set[str] = set()
        self._stored: dict[str, tuple[int, int]] = {}  # how many saves had ended when this one began, and with it
        self._waiting: dict[str, int] = {}  # with the thread that asked for it

    def __reduce__(self) -> tuple[Any, ...]:
        return Removals, ()  # it is about this process

    def loaded(self) -> None:
        """A checkpoint was loaded: of a run that goes on, the first save may wait when the first removal comes."""
        with self._lock:
            self._has_loaded = True

    def save_begins(self, path: str) -> int:
        """Returns what ``save_ended`` is to be told; ``save_failed`` may be called instead."""
        with self._lock:
            thread = threading.get_ident()
            self._savers.add(thread)
            self._under_way.add(path)
            if path in self._stored or self._waiting.get(path) == thread:
                self._waiting.pop(path, None)  # that was about an earlier one: this one is to stay
            return self._saves

    def save_ended(self, path: str, began: int) -> list[str]:
        """The checkpoint is stored. Returns what may be removed now."""
        with self._lock:
            self._saves += 1
            self._under_way.discard(path)
            self._stored[path] = began, self._saves
            due = [each for each in self._waiting if self._has_newer(each)]
            for each in due:
                self._forget(each)
            return due

    def save_failed(self, path: str) -> None:
        """What was there before is there still."""
        with self._lock:
            self._under_way.discard(path)

    def is_direct(self) -> bool:
        """Whether it is this thread that saves, so that its removals come after all saves that it has asked for."""
        with self._lock:
            return self._savers == {threading.get_ident()}

    def may_go(self, path: str, is_there: bool) -> bool:
        """Whether the checkpoint may be removed now; if not, it waits.

        Args:
            is_there: whether it is stored, be it by an earlier run.
        """
        with self._lock:
            if is_there and path not in self._under_way:  # else it may be there by this save, whose end is to come
                self._stored.setdefault(path, (0, 0))
            nothing_runs = not self._savers and not self._has_loaded  # as far as can be told
            if self._has_newer(path) or (is_there and nothing_runs):
                self._forget(path)
                return True
            self._waiting[path] = threading.get_ident()
            return False

    def remaining(self) -> list[str]:
        """No more saves will come. Returns what waits, which does not any more."""
        with self._lock:
            waiting = list(self._waiting)
            for each in waiting:
                self._forget(each)
            return waiting

    def forget(self, path: str) -> None:
        """The checkpoint is removed."""
        with self._lock:
            self._forget(path)

    def _forget(self, path: str) -> None:
        self._waiting.pop(path, None)
        self._stored.pop(path, None)

    def _has_newer(self, path: str) -> bool:
        if path not in self._stored:
            return False
        _, ended = self._stored[path]
        return any(began >= ended for other, (began, _) in self._stored.items() if other != path)
