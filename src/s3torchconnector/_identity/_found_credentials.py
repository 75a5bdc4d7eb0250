"""Credentials that were found, as long as they are valid, and how to renew them."""

from __future__ import annotations

import logging
import math
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from s3torchconnector._errors import S3CredentialsError
from s3torchconnector._identity._sigv4 import Credentials
from s3torchconnector._jitter import jitter
from s3torchconnector._sendable import flaw_of

_log = logging.getLogger(__name__)

_RENEWAL_CHECK_SECONDS = 1.0
_LONGEST_RENEWAL_PAUSE = 60.0  # between renewals that fail while the credentials are still valid
_LONGEST_VALIDITY = 1 << 32  # seconds; what is valid for longer does not end


class FoundCredentials:
    """Credentials and how to renew them.

    Attributes:
        source: where they come from.
        latest: the credentials that were read last.
        is_due: whether they end soon, or have ended.
    """

    def __init__(self, source: str, read: Callable[[], Any], expiring: Any, clock: Callable[[], float]) -> None:
        self.source = source
        self._read = read
        self._refresh_needed: Callable[..., bool] | None = getattr(expiring, "refresh_needed", None)
        self._clock = clock
        self._failures = 0  # renewals in a row
        self._expired = False
        self.is_due = False
        self._check_at = math.inf
        self.latest = self._checked()
        self._check_again()

    @property
    def is_renewed(self) -> bool:
        """Whether new ones can be had before they end."""
        return self._refresh_needed is not None

    def seconds_left(self) -> int | None:
        """How long they are valid from now on; None if that is unknown."""
        if self._refresh_needed is None or not self._refresh_needed(_LONGEST_VALIDITY):
            return None
        # botocore does not say when they expire, only whether they expire within a number of seconds.
        return max(0, bisect_left(range(_LONGEST_VALIDITY), True, key=self._refresh_needed) - 1)

    def valid(self) -> Credentials | None:
        """The credentials that were read last, unless they have expired."""
        if self._clock() >= self._check_at and self._refresh_needed is not None:
            self._check_at = self._clock() + _RENEWAL_CHECK_SECONDS
            self._expired = self._refresh_needed(0)
            self.is_due = self._expired or self._refresh_needed()
        return None if self._expired else self.latest

    def renew(self) -> Credentials:
        """Read the credentials again, which renews them if they end soon; if that fails, return them while valid."""
        try:
            fresh = self._checked()
        except S3CredentialsError as error:
            if self._refresh_needed is None or self._refresh_needed(0):
                raise
            _log.warning("%s. The current ones are still valid; renewal will be tried again", error)
            fresh = self.latest
        self._failures = self._failures + 1 if fresh == self.latest and self.is_due else 0
        if fresh != self.latest:  # otherwise keep the object, by which a signer recognises its key
            self.latest = fresh
        self._check_again()
        return self.latest

    def _checked(self) -> Credentials:
        frozen = guarded(self._read, f" from {self.source}")
        return refuse_unsendable(
            Credentials(frozen.access_key, frozen.secret_key, frozen.token or None), f"from {self.source}"
        )

    def _check_again(self) -> None:
        """Set the time of the next check whether to renew: soon, and later after each renewal that failed."""
        pause = math.inf
        if self._refresh_needed is not None:
            pause = _RENEWAL_CHECK_SECONDS
            if self._failures:
                pause = min(_LONGEST_RENEWAL_PAUSE, pause * 2.0 ** min(self._failures - 1, 10))
                pause *= (1.0 + jitter()) / 2.0  # other processes of the node would ask at the same time
        self._check_at = self._clock() + pause
        self.is_due = self._expired = False


def refuse_unsendable(credentials: Credentials, origin: str) -> Credentials:
    """Return ``credentials``, if the head of a request can carry them: a line break in them would forge headers.

    Raises:
        S3CredentialsError: it cannot. The text contains none of them.
    """
    for name, value in zip(("access key", "secret key", "session token"), credentials, strict=True):
        flaw = flaw_of(value or "")
        if flaw:
            raise S3CredentialsError(
                f"the AWS credentials {origin} cannot be used: the {name} contains {flaw}. Remove it where they are "
                "set (a value read from a file may end with a line break)"
            )
    return credentials


def guarded(call: Callable[[], Any], source: str = "") -> Any:
    """Return what ``call`` returns.

    Raises:
        S3CredentialsError: ``call`` raised anything.
    """
    try:
        return call()
    except Exception as error:
        # A provider may raise anything: the OSError of a process, the KeyError of an incomplete response.
        raise S3CredentialsError(
            f"the AWS credentials could not be retrieved{source}: {type(error).__name__}: {error}"
        ) from error
