"""Compatibility with 1.5.0: where it has ``MockS3Client``, which is in ``s3torchconnector.testing`` here."""

from importlib import import_module
from typing import Any

from s3torchconnector._late_imports import no_fork

__all__ = ["MockS3Client"]  # noqa: F822 (made below)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with no_fork:  # it needs a server, which no client does
        return import_module("s3torchconnector.testing").MockS3Client
