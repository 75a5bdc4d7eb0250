"""A garbage collection and an import at every lock that this package takes: ``pytest -p tests.stress_locks``.

If a collection runs while a thread holds a lock, that thread may have to run the finaliser of a reader, a writer or a
listing. So every lock that is made while this is installed collects as soon as code of the package has it, also inside
the standard library's events, conditions and futures. There is garbage to be found: readers, writers and listings are
made with a reference to themselves, so that only a collection ends those that are dropped. What the tests have made
before is frozen, so that a collection takes microseconds.

``strikes()`` returns their number.
"""

from __future__ import annotations

import gc
import importlib
import importlib.abc
import importlib.machinery
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType, ModuleType
from typing import Any

import pytest

_PACKAGE = "s3torchconnector"
_BETWEEN = {"threading", "queue", "contextlib", "concurrent.futures._base", __name__}  # whose locks are their callers'
_MODULE = "_imported_under_a_lock"
_real_lock, _real_rlock = threading.Lock, threading.RLock
_own = threading.local()
_count: list[None] = []
before_each: list[Callable[[FrameType], object]] = []
"""Called before each strike, with the frame that takes the lock."""


def strikes() -> int:
    """How many locks have been struck at."""
    return len(_count)


class StressedLock:
    """A lock that strikes when it is taken."""

    def __init__(self, make: Callable[[], Any] = _real_lock) -> None:
        self._lock = make()

    def acquire(self, *arguments: Any, **options: Any) -> bool:
        acquired = self._lock.acquire(*arguments, **options)
        if acquired:
            self._strike()
        return acquired

    def __enter__(self) -> bool:
        self._lock.acquire()
        self._strike()
        return True

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lock, name)  # release, locked, and what conditions and forks ask of a lock

    def _strike(self) -> None:
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and frame.f_globals.get("__name__") in _BETWEEN:
            frame = frame.f_back
        if frame is None or not frame.f_globals.get("__name__", "").startswith(_PACKAGE):
            return
        if not getattr(_own, "striking", False):
            _own.striking = True
            try:
                for prepare in before_each:
                    prepare(frame)
                strike()
            finally:
                _own.striking = False


def strike() -> None:
    """A full collection, and an import of something that imports lately."""
    _count.append(None)
    gc.collect()
    name = f"{_MODULE}{threading.get_ident()}"
    sys.modules.pop(name, None)
    importlib.import_module(name)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the module that each strike imports; it imports lately itself, as a user's module may."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(name, self) if name.startswith(_MODULE) else None

    def exec_module(self, module: ModuleType) -> None:
        from s3torchconnector._late_imports import no_fork

        with no_fork:
            import json  # noqa: F401


class _Cyclic(Iterator[Any]):
    """An iterator that only a collection ends."""

    def __init__(self, iterator: Any) -> None:
        self._iterator = iterator
        self._itself = self

    def __next__(self) -> Any:
        return next(self._iterator)

    def close(self) -> None:
        self._iterator.close()


def _refer_to_itself(kind: type[Any]) -> None:
    init = kind.__init__

    def __init__(self: Any, *arguments: Any, **options: Any) -> None:
        init(self, *arguments, **options)
        self._itself = self

    kind.__init__ = __init__


def _yield_cyclic(module: ModuleType, name: str) -> None:
    iterate = getattr(module, name)
    setattr(module, name, lambda *arguments, **options: _Cyclic(iterate(*arguments, **options)))


def install() -> None:
    """Stress every lock that is made from now on."""
    importlib.import_module(f"{_PACKAGE}.s3reader")
    sys.meta_path.insert(0, _Finder())
    threading.Lock = StressedLock  # type: ignore[misc, assignment]
    threading.RLock = lambda: StressedLock(_real_rlock)  # type: ignore[misc, assignment]
    from s3torchconnector import S3Reader, _transfer
    from s3torchconnector._transfer import PutObjectStream

    _refer_to_itself(S3Reader)
    _refer_to_itself(PutObjectStream)
    _yield_cyclic(_transfer, "list_all")
    _yield_cyclic(_transfer, "look_ahead")
    freeze()


def freeze() -> None:
    """Keep collections from looking at what there is now."""
    gc.collect()
    gc.freeze()


# -- as a plugin of pytest -----------------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    install()


def pytest_collection_finish(session: pytest.Session) -> None:
    freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    freeze()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"{strikes()} locks were struck at (process {os.getpid()})")
