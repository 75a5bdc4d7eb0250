"""Imports that are made when they are needed, and that no fork interrupts: ``with no_fork: import ...``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from s3torchconnector._fork_gate import no_fork

__all__ = ["names_from", "no_fork"]


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
