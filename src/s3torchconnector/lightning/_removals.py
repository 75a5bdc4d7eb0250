"""When a checkpoint may be removed: at once, or only after a newer one has been stored. No I/O.

Lightning's ``AsyncCheckpointIO`` saves on its own thread, one checkpoint at a time, but passes removals on at once. At
that time, the checkpoint's replacement may not be stored yet, nor may the checkpoint itself. So a removal from another
thread than the saving one waits for a checkpoint whose save began after this checkpoint's save had ended. So there is
always at least one checkpoint, because the newest is never removed.

A checkpoint that was loaded is not removed, unless it has been stored again since. Lightning itself keeps the file
that a run resumed from, but only on local disks: elsewhere, the run's first save would delete it.
"""

from __future__ import annotations

import threading
from typing import Any


class Removals:
    """What was stored, in which order, and which removals wait. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._savers: set[int] = set()  # the threads that have saved
        self._loaded: set[str] = set()
        self._saves = 0  # number of saves that have ended
        self._under_way: set[str] = set()
        self._stored: dict[str, tuple[int, int]] = {}  # number of saves that had ended when it began, and with it
        self._waiting: dict[str, int] = {}  # path to the thread that asked for the removal

    def __reduce__(self) -> tuple[Any, ...]:
        return Removals, ()  # the state belongs to this process

    def loaded(self, path: str) -> None:
        """Note that a checkpoint was loaded: it stays. A resumed run's first removal may come before its first save."""
        with self._lock:
            self._loaded.add(path)
            for each in [each for each in self._waiting if self._holds_loaded(each)]:
                del self._waiting[each]

    def is_kept(self, path: str) -> bool:
        """Whether the checkpoint, or one below it, was loaded and has not been stored again since."""
        with self._lock:
            return self._holds_loaded(path)

    def save_begins(self, path: str) -> int:
        """Note that a save begins. Returns what to pass to ``save_ended``, unless ``save_failed`` is called instead."""
        with self._lock:
            thread = threading.get_ident()
            self._savers.add(thread)
            self._under_way.add(path)
            if path in self._stored or self._waiting.get(path) == thread:
                self._waiting.pop(path, None)  # that removal was of an earlier checkpoint: this one is to stay
            return self._saves

    def save_ended(self, path: str, began: int) -> list[str]:
        """Note that a checkpoint was stored. Returns the checkpoints that may be removed now."""
        with self._lock:
            self._saves += 1
            self._under_way.discard(path)
            self._loaded.discard(path)
            self._stored[path] = began, self._saves
            due = [each for each in self._waiting if self._has_newer(each)]
            for each in due:
                self._forget(each)
            return due

    def save_failed(self, path: str) -> None:
        """Note that a save failed: what was stored before is unchanged."""
        with self._lock:
            self._under_way.discard(path)

    def is_direct(self) -> bool:
        """Whether only this thread saves, so that its removals follow all saves that it has started."""
        with self._lock:
            return self._savers == {threading.get_ident()}

    def may_go(self, path: str, is_there: bool) -> bool:
        """Whether the checkpoint may be removed now. If not, its removal waits.

        Args:
            is_there: whether it is stored, possibly by an earlier run.
        """
        with self._lock:
            if is_there and path not in self._under_way:  # otherwise this very save may have stored it
                self._stored.setdefault(path, (0, 0))
            nothing_runs = not self._savers and not self._loaded  # as far as is known
            if self._has_newer(path) or (is_there and nothing_runs):
                self._forget(path)
                return True
            self._waiting[path] = threading.get_ident()
            return False

    def remaining(self) -> list[str]:
        """Note that no more saves will come. Returns the checkpoints whose removals waited."""
        with self._lock:
            waiting = list(self._waiting)
            for each in waiting:
                self._forget(each)
            return waiting

    def forget(self, path: str) -> None:
        """Note that the checkpoint is removed."""
        with self._lock:
            self._forget(path)

    def _forget(self, path: str) -> None:
        self._waiting.pop(path, None)
        self._stored.pop(path, None)

    def _holds_loaded(self, path: str) -> bool:
        directory = path.rstrip("/")
        return any(each == directory or each.startswith(f"{directory}/") for each in self._loaded)

    def _has_newer(self, path: str) -> bool:
        if path not in self._stored:
            return False
        _, ended = self._stored[path]
        return any(began >= ended for other, (began, _) in self._stored.items() if other != path)
