"""Credentials that the program gives: a value, or a function that is called again when they end.

One thread at a time calls the function, and no lock is held meanwhile: it may take locks of the program, start threads
or import modules. Other threads that need credentials wait, and use what it returns.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from s3torchconnector._identity._found_credentials import FoundCredentials
from s3torchconnector._identity._sigv4 import Credentials
from s3torchconnector._late_imports import no_fork
from s3torchconnector._sendable import name_of

if TYPE_CHECKING:
    from s3torchconnector._s3credentials import GivenCredentials, S3Credentials

_EARLIEST = 900.0  # seconds before their end that credentials are renewed, as botocore does; half their life, if less


class _Issuer:
    """The program's function, and when it has to be called again: botocore's interface of renewable credentials."""

    def __init__(self, function: Callable[[], S3Credentials]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._call: Future[S3Credentials] | None = None  # under way
        self._latest: S3Credentials | None = None
        self._due = 0.0

    def read(self) -> Credentials:
        """Call the function.

        Raises:
            TypeError: it has returned something else.
            Exception: whatever it raises.
        """
        own: Future[S3Credentials] = Future()
        with self._lock:
            call = self._call
            if call is None:
                self._call = own
        if call is None:
            try:
                own.set_result(self._issued())
            except BaseException as error:
                own.set_exception(error)
            finally:
                self._call = None
        found = (call or own).result()
        return Credentials(found.access_key, found.secret_key, found.session_token or None)

    def _issued(self) -> S3Credentials:
        found = self._function()
        with no_fork:
            from s3torchconnector._s3credentials import S3Credentials  # here: most programs give none

        if not isinstance(found, S3Credentials):
            raise TypeError(f"{name_of(self._function)} must return S3Credentials, but returned {type(found).__name__}")
        if found != self._latest:  # the same again lasts no longer than it did
            ends, now = found._ends, time.time()
            self._due = 0.0 if ends is None else ends - min(_EARLIEST, max(0.0, ends - now) / 2.0)
            self._latest = found
        return found

    def refresh_needed(self, refresh_in: float | None = None) -> bool:
        """Whether the latest credentials end within so many seconds; None: whether it is time to renew them."""
        ends = None if self._latest is None else self._latest._ends
        if ends is None:
            return False
        return time.time() >= (self._due if refresh_in is None else ends - refresh_in)


def given_credentials(
    given: GivenCredentials, clock: Callable[[], float]
) -> tuple[Callable[[], FoundCredentials], Callable[[], FoundCredentials | None]]:
    """How to look up what ``S3ClientConfig(credentials=...)`` gives: by any means, and if it must take no time.

    Args:
        given: the credentials, or the function that returns them.
        clock: the time in seconds, to space the checks whether to renew.
    """
    if not callable(given):
        # Their expiry is left to S3, whose clock is right. It refuses them then, and the error names their source.
        static = Credentials(given.access_key, given.secret_key, given.session_token or None)
        until = "" if given.expiry is None else f" until {given.expiry}"
        source = f"S3ClientConfig(credentials=...){until}"
        found = FoundCredentials(source, lambda: static, None, clock)
        return lambda: found, lambda: found
    issuer = _Issuer(given)
    source = f"the function {name_of(given)} of S3ClientConfig(credentials=...)"
    return lambda: FoundCredentials(source, issuer.read, issuer, clock), lambda: None
