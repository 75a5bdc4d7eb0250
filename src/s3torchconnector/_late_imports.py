"""Imports that are made when they are needed, and that no fork interrupts: ``with no_fork: import ...``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from s3torchconnector._fork_gate import no_fork

__all__ = ["names_from", "no_fork"]


def names_from(module: str, modules: Mapping[str, str], package: str | None = None) -> Callable[[str], Any]:
    """A module's ``__getattr__`` (PEP 562): imports what has a name when the name is first used.

    Args:
        module: the module's name.
        modules: the module of the package that has each name.
        package: the package's name; by default it is the module itself.
    """
    package = package or module

    def find(name: str) -> Any:
        if name not in modules and name not in modules.values():
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        with no_fork:
            found = import_module(f"{package}.{modules.get(name, name)}")
        value = getattr(found, name) if name in modules else found
        setattr(sys.modules[module], name, value)
        return value

    return find
