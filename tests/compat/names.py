"""The names of 1.5.0: ``python names.py`` prints them, one a line, with the parameters of what can be called.

This file runs in the environment of 1.5.0, too: it imports nothing of the tests.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Iterator
from typing import Any

PACKAGES = ("s3torchconnector", "s3torchconnectorclient")
# Private by their path, but imported by public programs.
IMPORTED = (
    "s3torchconnector._s3bucket_key_data",
    "s3torchconnector._s3client",
    "s3torchconnector._s3client._mock_s3client",
    "s3torchconnector._s3client._s3client",
    "s3torchconnector._s3client.s3client_config",
    "s3torchconnector._s3dataset_common",
    "s3torchconnector._user_agent",
    "s3torchconnector._version",
    "s3torchconnectorclient._mountpoint_s3_client",
)


def names() -> list[str]:
    """``module name``, ``module name(parameters)`` and ``module name.method(parameters)``, sorted."""
    return sorted({line for module in _modules() for line in _names(module)})


def _modules() -> Iterator[Any]:
    for package in PACKAGES:
        path = importlib.import_module(package).__path__
        found = [package, *(each.name for each in pkgutil.walk_packages(path, f"{package}."))]
        for name in found:
            if name in IMPORTED or not any(part.startswith("_") for part in name.split(".")):
                yield importlib.import_module(name)


def _names(module: Any) -> Iterator[str]:
    for name, value in vars(module).items():
        home = getattr(value, "__module__", None)
        ours = home.startswith(PACKAGES) if isinstance(home, str) else name.isupper() or name == "__version__"
        if not ours or (name.startswith("_") and name != "__version__") or inspect.ismodule(value):
            continue
        yield f"{module.__name__} {name}{_parameters(value) if home == module.__name__ else ''}"
        if inspect.isclass(value) and home == module.__name__:
            yield from (f"{module.__name__} {name}.{each}" for each in _members(value))


def _members(kind: type) -> Iterator[str]:
    for name, value in vars(kind).items():
        if not name.startswith("_"):
            yield name + _parameters(getattr(kind, name) if callable(getattr(kind, name)) else value)


def _parameters(value: Any) -> str:
    """The names of the parameters, without ``self``; nothing if the value cannot be called, or does not tell."""
    if not callable(value) or getattr(value, "_is_protocol", False):
        return ""
    try:
        return f"({', '.join(name for name in inspect.signature(value).parameters if name != 'self')})"
    except (TypeError, ValueError):
        return ""


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print("\n".join(names()))
