"""Files that get their names when they are complete, so that a partial file is never visible or kept.

Bytes go to a temporary file in the same folder, named ``.s3torch-....part``. It is renamed at the end. If the command
is interrupted, those that are not finished are removed. Only a command that is killed leaves some.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Callable
from types import TracebackType

from s3torchconnector._cli._file_errors import named_in_errors
from s3torchconnector._cli._jobs import StoppedError

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES, errno.EINVAL)
_NAME = re.compile(r"\.s3torch-[0-9a-f]{16}\.part")
_EITHER = "In S3, a name can be both; in a file system, it cannot"


def is_partial(name: str) -> bool:
    """Whether a file has the name of one that is not whole."""
    return _NAME.fullmatch(name) is not None


class PartialFiles:
    """Writes files. At the end of a ``with`` block that an exception leaves, those that are not whole are removed.

    Args:
        replace: whether a file that is there is replaced.
        sync: whether a file is on the disk, and not only in memory, before it gets its name.
    """

    def __init__(self, *, replace: bool, sync: bool) -> None:
        self._replace = replace
        self._sync = sync
        self._unfinished: set[str] = set()
        self._ended = False

    def write(self, path: str, fill: Callable[[int], object], modified: float) -> bool:
        """Store a file, whole or not at all. Whether it was stored: False if there is one that must stay.

        Args:
            path: of the file. Its folders are made.
            fill: writes the file, whose descriptor it gets.
            modified: the time of the file, in seconds since 1970.

        Raises:
            OSError: it could not be stored. What ``fill`` raises is raised, too.
        """
        with named_in_errors(path):
            return self._write(path, fill, modified)

    def _write(self, path: str, fill: Callable[[int], object], modified: float) -> bool:
        folder = os.path.dirname(path)
        temporary = os.path.join(folder, f".s3torch-{secrets.token_hex(8)}.part")
        self._unfinished.add(temporary)
        try:
            descriptor = _create(temporary, folder)
            try:
                fill(descriptor)
                if self._sync:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.utime(temporary, (modified, modified))
            if self._ended:  # and the temporary file may be removed already
                raise StoppedError(f"{path} was not stored: the command is ending")
            return self._publish(temporary, path)
        finally:
            with contextlib.suppress(OSError):  # it has another name now, or was never made
                os.unlink(temporary)
            self._unfinished.discard(temporary)

    def _publish(self, temporary: str, path: str) -> bool:
        try:
            if self._replace:
                os.replace(temporary, path)
            elif not _rename_to_new(temporary, path):
                return False
        except IsADirectoryError:
            raise IsADirectoryError(errno.EISDIR, f"there is a folder of this name. {_EITHER}", path) from None
        if self._sync:
            _sync_folder(os.path.dirname(path) or ".")
        return True

    def __enter__(self) -> PartialFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended = True
        for temporary in list(self._unfinished):
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _create(temporary: str, folder: str) -> int:
    try:
        return os.open(temporary, _FLAGS, 0o666)
    except FileNotFoundError:
        pass
    except NotADirectoryError:
        raise _no_folder(folder) from None
    try:
        os.makedirs(folder, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise _no_folder(folder) from None
    return os.open(temporary, _FLAGS, 0o666)


def _no_folder(folder: str) -> NotADirectoryError:
    return NotADirectoryError(errno.ENOTDIR, f"a file is where a folder is needed. {_EITHER}", folder)


def _rename_to_new(temporary: str, path: str) -> bool:
    """Give the file its name, unless there is one of that name."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    else:
        return True
    if os.path.lexists(path):  # file systems without links: another process may be faster in between
        return False
    os.rename(temporary, path)
    return True


def _sync_folder(folder: str) -> None:
    with contextlib.suppress(OSError):  # no folder can be opened on Windows, nor synced on some file systems
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
