"""Imports that wait until they are needed, and that no fork cuts in two: ``with no_fork: import ...``.

A child that is forked while another thread imports a module inherits that module's lock, which nobody will release
there: the child waits for ever as soon as it imports the module itself. So a fork waits until such imports are over.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

_PATIENCE = 10.0  # seconds that a fork waits: whoever forks may hold what an import waits for
no_fork = threading.RLock()
_own = threading.local()


def names_from(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's ``__getattr__`` (PEP 562): each name brings its module with it when it is first used.

    Args:
        package: the package's name.
        modules: by name, the module of the package that has it.
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


def _before_fork() -> None:
    _own.held = no_fork.acquire(timeout=_PATIENCE)


def _after_fork_in_parent() -> None:
    if _own.held:
        no_fork.release()


def _after_fork_in_child() -> None:
    if _own.held:
        no_fork.release()
    else:
        no_fork._at_fork_reinit()  # type: ignore[attr-defined]  # as the standard library does with its own


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
