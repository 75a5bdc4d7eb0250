"""Imports that are made when they are needed, and that no fork interrupts: ``with no_fork: import ...``.

A child that is forked while another thread imports a module inherits the lock of that module, which nobody releases
there: the child waits for ever as soon as it imports the module itself. So a fork waits until such imports are over.

No lock of ours is held during an import. A thread that waited for it could hold the lock of a module that the import
needs, and both would wait for ever. Imports are counted instead, by operations on built-in types that are atomic, and
each side looks at the other after it has announced itself.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from threading import get_ident
from typing import Any

from s3torchconnector._latch import Latch
from s3torchconnector._platform import at_fork

_TIMEOUT = 10.0  # seconds that a fork waits: the thread that forks may hold what an import waits for
_LOOK_AGAIN = 0.1  # seconds after which a fork looks again: an interrupt may have kept an import from waking it
_importing: list[int] = []  # the threads that import, once for each import
_forking: dict[int, Latch] = {}  # the threads that fork, and what is opened afterwards
_waiting: dict[int, Latch] = {}  # the threads that want to fork, and what is opened after each import


class _NoFork:
    """Keeps other threads from forking. If one forks already, waits for it as long as forks wait for imports."""

    def __enter__(self) -> None:
        me, until = get_ident(), time.monotonic() + _TIMEOUT
        while True:
            try:
                _importing.append(me)
                fork = next((over for thread, over in _forking.copy().items() if thread != me), None)
                if fork is None or (left := until - time.monotonic()) <= 0:
                    return
            except BaseException:  # an interrupt: without ``__enter__`` there is no ``__exit__``
                _end_import(me)
                raise
            _end_import(me)
            fork.wait(left)

    def __exit__(self, *_: object) -> None:
        _end_import(get_ident())


no_fork = _NoFork()


def names_from(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's ``__getattr__`` (PEP 562): imports each name's module when the name is first used.

    Args:
        package: the package's name.
        modules: the module of the package that has each name.
    """

    def find(name: str) -> Any:
        if name not in modules and name not in modules.values():
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with no_fork:
            module = import_module(f"{package}.{modules.get(name, name)}")
        value = getattr(module, name) if name in modules else module
        setattr(sys.modules[package], name, value)
        return value

    return find


def _end_import(thread: int) -> None:
    if thread in _importing:
        _importing.remove(thread)
    for changed in list(_waiting.values()):
        changed.open()


def _before_fork() -> None:
    me, until = get_ident(), time.monotonic() + _TIMEOUT
    while True:
        changed = _waiting[me] = Latch()
        over = _forking[me] = Latch()
        if all(thread == me for thread in list(_importing)) or (left := until - time.monotonic()) <= 0:
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
    _importing[:] = [thread for thread in _importing if thread == me]  # the other threads are the parent's
    _forking.clear()
    _waiting.clear()


at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
