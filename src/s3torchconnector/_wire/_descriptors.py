"""When this process has as many files open as it may: idle connections are closed, and opening is tried again."""

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


class ClosesIdle(Protocol):
    """Something with open descriptors that it can do without."""

    def close_idle(self) -> None:
        """Close them."""


_pools: weakref.WeakKeyDictionary[ClosesIdle, None] = weakref.WeakKeyDictionary()


def register(pool: ClosesIdle) -> None:
    """Have ``pool`` close its idle descriptors whenever none are left, for as long as it lives."""
    _pools[pool] = None


def open_descriptors(make: Callable[[], _T], failure: str) -> _T:
    """What ``make`` opens; it is called a second time if no descriptor was left.

    Raises:
        S3ConnectionError: none was left then either; the text begins with ``failure``.
    """
    try:
        return make()
    except (OSError, S3Exception) as error:
        if not _are_used_up(error):
            raise
    for reference in _pools.keyrefs():  # copied in one step, because other threads register pools
        pool = reference()
        if pool is not None:
            pool.close_idle()
    try:
        return make()
    except (OSError, S3Exception) as error:
        if not _are_used_up(error):
            raise
        raise S3ConnectionError(
            f"{failure}: this process has as many files and connections open as it may ({_limit()}). Raise that "
            "limit, close files that the program no longer needs, or lower max_connections in S3ClientConfig"
        ) from error


def check_descriptors() -> None:
    """Open a file and close it.

    Raises:
        OSError: no descriptor is left.
    """
    os.close(os.open(os.devnull, os.O_RDONLY))


def _are_used_up(error: BaseException | None) -> bool:
    while error is not None:
        if getattr(error, "errno", None) in _USED_UP:
            return True
        if isinstance(error, socket.gaierror):  # the resolver does not say why it failed
            try:
                check_descriptors()
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
