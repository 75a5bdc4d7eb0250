"""The modules of the package, and what they have for programs."""

from __future__ import annotations

import importlib
import pkgutil
from functools import lru_cache
from types import ModuleType
from typing import Any

PACKAGES = ("s3torchconnector", "s3torchconnectorclient")


@lru_cache
def modules() -> tuple[ModuleType, ...]:
    """All modules, public or not, in the order of their names."""
    names = list(PACKAGES)
    for package in PACKAGES:
        path = importlib.import_module(package).__path__
        names += [found.name for found in pkgutil.walk_packages(path, f"{package}.")]
    return tuple(importlib.import_module(name) for name in sorted(names))


def public_modules() -> list[ModuleType]:
    """The modules whose path has no name that begins with an underscore."""
    return [each for each in modules() if not any(part.startswith("_") for part in each.__name__.split("."))]


def public_names(module: ModuleType) -> dict[str, Any]:
    """What a public module exports, by name; nothing for any other module."""
    return {name: getattr(module, name) for name in module.__all__} if module in public_modules() else {}
