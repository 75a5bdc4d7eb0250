"""Errors of the system about files, with their names and what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from s3torchconnector._errors import S3Exception

STANDARD_OUTPUT = "standard output"
_ADVICE = {
    errno.ENOSPC: "Free some space, or write to another disk",
    errno.EDQUOT: "The quota of this user is used up: delete files, or write to another disk",
    errno.EROFS: "Write to a folder of a file system that can be changed",
    errno.EACCES: "Change the permissions of the folder, or write to another one",
    errno.EPERM: "Change the permissions of the folder, or write to another one",
    errno.ENAMETOOLONG: "Copy the object alone, to a shorter name",
    errno.EFBIG: "The file system, or a limit of this process (ulimit -f), allows no file of this size",
}


@contextmanager
def named_in_errors(path: str, *, unnamed: bool = False) -> Iterator[None]:
    """In the block, what the system says of a file is raised with ``path``, and with advice. S3's errors stay.

    With ``unnamed``, only errors get the path that have none.

    >>> from s3torchconnector._cli._file_errors import named_in_errors
    >>> with named_in_errors("model.pt"):
    ...     raise OSError(28, "No space left on device")
    Traceback (most recent call last):
    OSError: [Errno 28] No space left on device. Free some space, or write to another disk: 'model.pt'
    """
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0)
        is_ours = not isinstance(error, S3Exception) and not (unnamed and error.filename is not None)
        if not is_ours or advice is None or error.strerror is None:
            raise
        raise OSError(error.errno, f"{error.strerror}. {advice}", path) from error
