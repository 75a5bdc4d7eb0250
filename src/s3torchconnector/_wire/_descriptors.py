"""What happens when this process has as many files open as it may: idle connections are closed for another try."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import weakref
from collections.abc import Callable
from typing import Protocol, TypeVar

from s3torchconnector._errors import S3ConnectionError, S3Exception
from s3torchconnector._late_imports import no_fork

_T = TypeVar("_T")
_USED_UP = (errno.EMFILE, errno.ENFILE)


class Holder(Protocol):
    """Who has open descriptors that can be done without."""

    def close_idle(self) -> None:
        """Close them."""


_holders: weakref.WeakKeyDictionary[Holder, None] = weakref.WeakKeyDictionary()


def add_holder(holder: Holder) -> None:
    """From now on, and as long as it lives, it is asked to close what it can do without."""
    _holders[holder] = None


def have(make: Callable[[], _T], failure: str) -> _T:
    """What ``make`` opens; it is called again if there was no descriptor left.

    Raises:
        S3ConnectionError: there is none left in spite of that; it begins with ``failure``.
    """
    try:
        return make()
    except (OSError, S3Exception) as error:
        if not _are_used_up(error):
            raise
    for reference in _holders.keyrefs():  # taken in one step: other threads add to it
        holder = reference()
        if holder is not None:
            holder.close_idle()
    try:
        return make()
    except (OSError, S3Exception) as error:
        if not _are_used_up(error):
            raise
        raise S3ConnectionError(
            f"{failure}: this process has as many files and connections open as it may ({_limit()}): raise that limit, "
            "close files that the program no longer needs, or lower max_connections in S3ClientConfig"
        ) from error


def open_one() -> None:
    """Open a file and close it.

    Raises:
        OSError: there is no descriptor left.
    """
    os.close(os.open(os.devnull, os.O_RDONLY))


def _are_used_up(error: BaseException | None) -> bool:
    while error is not None:
        if getattr(error, "errno", None) in _USED_UP:
            return True
        if isinstance(error, socket.gaierror):  # the resolver does not say why it could not ask
            try:
                open_one()
            except OSError as reason:
                return reason.errno in _USED_UP
        error = error.__cause__
    return False


def _limit() -> str:
    with contextlib.suppress(ImportError):
        with no_fork:
            import resource

        return f"`ulimit -n` is {resource.getrlimit(resource.RLIMIT_NOFILE)[0]}"
    return "the limit of the system"
