"""Which file is which key: a slash in a key is a folder, and nothing leaves the folder that was named. Pure.

Keys may be any text. Only those are taken that name one file, below the folder, whose path gives the same key again.
All others are refused: nothing is renamed, because two keys could then have one file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

_LONGEST = 255  # bytes of a file's name that all usual file systems take
_OF_WINDOWS = frozenset('<>:"\\|?*') | frozenset(map(chr, range(32)))
# https://learn.microsoft.com/en-us/windows/win32/fileio/naming-a-file
_DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{name}{number}" for name in ("COM", "LPT") for number in range(1, 10))}


class NameRefusedError(ValueError):
    """A key cannot be a file, or a file's path cannot be a key. The text says why."""


def path_of(folder: str, relative: str, *, windows: bool = os.name == "nt") -> str:
    """The path of the file of a key.

    Args:
        folder: what the file is below.
        relative: the rest of the key, after the prefix that the folder stands for.

    Raises:
        NameRefusedError: there is no such file.
    """
    names = relative.split("/")
    for name in names:
        reason = _refusal(name, windows)
        if reason is not None:
            raise NameRefusedError(f"this key cannot be a file: {reason}")
    return os.path.join(folder, *names)


def key_of(names: Iterable[str]) -> str:
    """The key of a file, from the names of its folders and its own.

    Raises:
        NameRefusedError: a name is not text.
    """
    key = "/".join(names)
    try:
        key.encode()
    except UnicodeEncodeError:
        raise NameRefusedError("this file cannot be an object: its name is not valid UTF-8. Rename it") from None
    return key


def _refusal(name: str, windows: bool) -> str | None:
    if not name:
        return "it has an empty part, at its beginning, at its end, or between two slashes"
    if name in (".", ".."):
        return f"its part {name!r} means another folder"
    if "\0" in name:
        return "it has a character that file systems do not take: '\\x00'"
    try:
        size = len(os.fsencode(name))
    except UnicodeEncodeError:
        return f"the file system's encoding has no such characters: {name!r}"
    if size > _LONGEST:
        return f"a part of it has {size} bytes, and names of files have at most {_LONGEST}"
    return _refusal_of_windows(name) if windows else None


def _refusal_of_windows(name: str) -> str | None:
    strange = sorted(_OF_WINDOWS.intersection(name))
    if strange:
        return f"it has a character that Windows does not take: {strange[0]!r}"
    if name[-1] in " .":
        return f"Windows drops the end of {name!r}"
    if name.partition(".")[0].rstrip().upper() in _DEVICES:
        return f"{name!r} is a device on Windows"
    return None
