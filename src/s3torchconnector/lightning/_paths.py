"""The paths that Lightning passes to its plugin: which object each of them names. No I/O."""

from __future__ import annotations

import os
import re
from typing import Any

from s3torchconnector._uri import parse_object_uri, path_text

_NORMALISED = re.compile(r"(?!\w+://)(?:.*/)?s3:/(?!/)", re.IGNORECASE | re.DOTALL)
"""What pathlib.Path and os.path.normpath (``s3:/``), and os.path.abspath (``/here/s3:/``), make of ``s3://``."""


def is_local(path: Any) -> bool:
    """Whether the path is one of a local disk.

    >>> from s3torchconnector.lightning._paths import is_local
    >>> is_local("/tmp/last.ckpt"), is_local("s3://bucket/last.ckpt"), is_local("gs://bucket/last.ckpt")
    (True, False, False)
    """
    if not isinstance(path, (str, os.PathLike)):
        return False
    text = path_text(path)
    if not isinstance(text, str) or not text or _NORMALISED.match(text) is not None:
        return False
    return "://" not in text or text.startswith("file://")


def object_of(path: Any) -> tuple[str, str]:
    """Bucket and key of a path.

    Some strategies of Lightning make a ``pathlib.Path`` of each path, which removes a slash of ``s3://``. It is put
    back: otherwise a local directory ``s3:`` would be made.

    Raises:
        TypeError: the path is neither a string nor a ``pathlib.Path``, or not one of ``s3://``.
        ValueError: it names no object.

    >>> from pathlib import PurePosixPath
    >>> from s3torchconnector.lightning._paths import object_of
    >>> object_of("s3://bucket/last.ckpt") == object_of(PurePosixPath("s3://bucket/last.ckpt"))
    True
    """
    if isinstance(path, os.PathLike):
        path = path_text(path)
    if isinstance(path, str):
        if path[:5].lower() == "s3://":
            return parse_object_uri(path)
        if (start := _NORMALISED.match(path)) is not None:
            return parse_object_uri(f"s3://{path[start.end() :]}")
    raise TypeError(
        f"the path of a checkpoint must be a string that begins with 's3://', not {path!r} ({type(path).__name__})"
    )
