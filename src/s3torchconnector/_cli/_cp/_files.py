"""The files below a folder, found while others are copied already."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple


class FoundFile(NamedTuple):
    """A file below a folder.

    Attributes:
        path: of the file.
        names: of its folders below that folder, and its own.
        refused: why it cannot be copied; None if it can.
    """

    path: str
    names: tuple[str, ...]
    refused: str | None = None


_Folder = tuple[str, tuple[str, ...], tuple[tuple[int, int], ...]]  # its path, its names, it and those that it is in


def files_below(folder: str, follow_links: bool) -> Iterator[FoundFile]:
    """All files, in the order in which the file system tells them.

    Links are followed to files and to folders, but not to a folder that they are in. Or they are left out.

    Raises:
        OSError: the folder cannot be read. Folders in it that cannot be read are refused.
    """
    folders: list[_Folder] = [(folder, (), (_identity(folder),))]
    while folders:
        path, names, inside = folders.pop()
        try:
            entries = os.scandir(path)
        except OSError as error:
            if not names:
                raise
            yield FoundFile(path, names, refused=str(error))
            continue
        with entries:
            for entry in entries:
                if entry.is_symlink() and not follow_links:
                    continue
                found = _look(entry, (*names, entry.name), inside)
                if isinstance(found, FoundFile):
                    yield found
                else:
                    folders.append(found)


def _look(entry: os.DirEntry[str], names: tuple[str, ...], inside: tuple[tuple[int, int], ...]) -> FoundFile | _Folder:
    try:
        if entry.is_file():
            return FoundFile(entry.path, names)
        if not entry.is_dir():
            return FoundFile(entry.path, names, refused=_why_no_file(entry))
        identity = _identity(entry.path)
        if identity in inside:
            return FoundFile(entry.path, names, refused="this link leads to a folder that it is in")
        return entry.path, names, (*inside, identity)
    except OSError as error:
        return FoundFile(entry.path, names, refused=str(error))


def _why_no_file(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink() and not os.path.exists(entry.path):
        return f"this link leads nowhere: {os.readlink(entry.path)}"
    return "neither a file nor a folder, but a device, a socket or a pipe"


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino
