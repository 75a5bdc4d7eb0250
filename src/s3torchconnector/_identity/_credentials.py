"""Credentials from all the places where AWS tools look, renewed in time.

Strategy: botocore looks up credentials and renews them before they expire; this module adds what a client with many
threads needs. Nothing is looked up before the first request. One thread looks up while the others wait and share what
it finds, or its error, so that an unreachable metadata service costs its timeout once, and not once per thread.
botocore decides when to renew; it is asked at most once a second, because asking takes longer than signing. Credentials
are used as long as they are valid, even if their renewal fails.

A look-up may take long. A thread that must not wait uses what ``valid`` returns, and another thread calls ``get``;
``_wire/_authenticator`` does both, and decides how often to try.

Credentials that the program gives (``_given_credentials``) are used instead of all these. Keys in the environment, with
no profile named, do not need botocore: importing it would cost more than a request. A provider belongs to one process;
its owner makes a new one after a fork.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3CredentialsError
from s3torchconnector._identity._found_credentials import FoundCredentials, guarded
from s3torchconnector._identity._lookup_failures import metadata_service_is_late
from s3torchconnector._identity._sigv4 import Credentials
from s3torchconnector._latch import Latch
from s3torchconnector._late_imports import no_fork

if TYPE_CHECKING:
    from botocore.session import Session

_log = logging.getLogger(__name__)

_LONGER = 8  # the usual timeout is multiplied by at most this, after a metadata service was late

NO_CREDENTIALS_ADVICE = (
    "Set the two variables, run `aws configure` or `aws sso login`, or name a profile with "
    "S3ClientConfig(profile=...); for a public bucket, S3ClientConfig(unsigned=True) needs no credentials"
)

# The first one wins, as in botocore's EnvProvider.
_TOKEN_VARIABLES = ("AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")


class CredentialsProvider(Protocol):
    """Where the credentials of requests come from; every method may be called from any thread."""

    @property
    def is_due(self) -> bool:
        """Whether what ``valid`` has just returned ends soon, so that ``get`` should renew it."""

    @property
    def found(self) -> FoundCredentials | None:
        """The latest result of a look-up; None if there was none yet, or if nothing is signed."""

    def valid(self) -> Credentials | None:
        """Return what to sign the next request with, or None if that is not known without waiting.

        Raises:
            S3CredentialsError: the credentials contain characters that no request can carry.
        """

    def get(self) -> Credentials | None:
        """Return what to sign the next request with; ``None`` for unsigned requests. May take long.

        Raises:
            S3CredentialsError: there are none, or they could not be retrieved.
        """

    def refresh(self, rejected: Credentials) -> Credentials:
        """Return other credentials than those that S3 has just called expired or unknown. Looks them up again,
        unless another thread has done so.

        Raises:
            S3CredentialsError: there are none, or the same ones were found again.
        """


def credentials_provider(
    config: S3ClientConfig, *, region: str | None = None, clock: Callable[[], float] = time.monotonic
) -> CredentialsProvider:
    """Return the provider that ``config`` asks for. Looks nothing up yet.

    Args:
        config: ``unsigned``, ``credentials`` and ``profile`` are used.
        region: the region of AWS STS, which gives the credentials of a role; ``None`` takes the configured region. A
            client of botocore uses its own region.
        clock: the time in seconds, to space the checks whether to renew.
    """
    if config.unsigned:
        return _Unsigned()
    if config.credentials is not None:
        with no_fork:
            from s3torchconnector._identity._given_credentials import given_credentials  # here: most programs give none

        return _LookedUp(*given_credentials(config.credentials, clock))
    return _LookedUp(_Search(config.profile, region, clock), lambda: _at_hand(config.profile, clock))


class _Unsigned:
    is_due = False
    found = None

    def valid(self) -> None:
        return None

    def get(self) -> None:
        return None

    def refresh(self, rejected: Credentials) -> Credentials:
        raise S3CredentialsError("S3ClientConfig(unsigned=True) sends unsigned requests: nothing can be renewed")


class _LookedUp:
    """Looks up credentials at first use and after a rejection.

    ``_found`` is the latest result, ``_error`` the error of the latest look-up if it failed, and ``_lookups`` the
    number of look-ups. All are written under the lock and read without it: a thread that read an old count notices that
    once it has the lock. A look-up that fails leaves the latest result in place. No lock is held during a look-up,
    which may call the program.

    Args:
        look_up: looks everywhere; may take long.
        at_hand: looks only where that takes no time.
    """

    def __init__(
        self, look_up: Callable[[], FoundCredentials], at_hand: Callable[[], FoundCredentials | None] = lambda: None
    ) -> None:
        self._find = look_up
        self._at_hand = at_hand
        self._lock = threading.Lock()
        self._lookups = 0
        self._under_way: Latch | None = None  # opened at the end of the look-up
        self._found: FoundCredentials | None = None
        self._error: S3CredentialsError | None = None

    @property
    def is_due(self) -> bool:
        return self._found is not None and self._found.is_due

    @property
    def found(self) -> FoundCredentials | None:
        return self._found

    def valid(self) -> Credentials | None:
        if self._found is None:
            self._found = self._at_hand()
        return self._found.valid() if self._found is not None else None

    def get(self) -> Credentials:
        seen, found = self._lookups, self._found
        if found is None:
            return self._look_up(seen).latest
        valid = found.valid()
        return found.renew() if valid is None or found.is_due else valid

    def refresh(self, rejected: Credentials) -> Credentials:
        seen, found = self._lookups, self._found
        if found is not None and found.latest != rejected:
            return found.latest
        found = self._look_up(seen)
        if found.latest == rejected:
            raise S3CredentialsError(
                f"S3 rejected the credentials of access key {rejected.access_key!r} as expired or unknown, "
                f"and {found.source} still names the same ones: renew them there"
            )
        return found.latest

    def _look_up(self, seen: int) -> FoundCredentials:
        """Look up, unless another thread has since ``seen`` look-ups, or is doing so."""
        own = Latch()
        with self._lock:
            is_done, other = self._lookups != seen, self._under_way
            if not is_done and other is None:
                self._under_way = own
        if not is_done and other is not None:
            other.wait()
        elif not is_done:
            self._carry_out(own)
        with self._lock:
            found, failure = self._found, self._error
        if failure is None and found is not None:
            return found
        # Each thread raises its own error object: one object raised in several threads would mix their tracebacks.
        raise S3CredentialsError(str(failure)) from (failure and failure.__cause__)

    def _carry_out(self, own: Latch) -> None:
        found: FoundCredentials | None = None
        error: S3CredentialsError | None = S3CredentialsError("the look-up was interrupted")
        try:
            found, error = self._find(), None
        except S3CredentialsError as failure:
            error = failure
        finally:
            with self._lock:
                self._found, self._error = found or self._found, error
                self._lookups += 1
                self._under_way = None
            own.open()


def _at_hand(profile: str | None, clock: Callable[[], float]) -> FoundCredentials | None:
    static = _from_environment(os.environ) if profile is None else None
    return FoundCredentials("the environment", lambda: static, None, clock) if static is not None else None


class _Search:
    """Looks for credentials everywhere, afresh each time."""

    def __init__(self, profile: str | None, region: str | None, clock: Callable[[], float]) -> None:
        self._profile = profile
        self._region = region
        self._clock = clock
        self._longer = 1  # times the usual timeout of the metadata service

    def __call__(self) -> FoundCredentials:
        return _at_hand(self._profile, self._clock) or self._found_by_botocore()

    def _found_by_botocore(self) -> FoundCredentials:
        with no_fork:
            from botocore.credentials import create_credential_resolver
            from botocore.session import Session

        def find() -> Any:
            usual = session.get_config_variable("metadata_service_timeout")
            session.set_config_variable("metadata_service_timeout", usual * self._longer)
            return create_credential_resolver(session, region_name=self._region).load_credentials()

        session = Session(profile=self._profile)
        found = guarded(find)
        if found is None:
            failure = S3CredentialsError(_nowhere(session, self._profile))
            if not metadata_service_is_late(session):
                raise failure
            self._longer = min(_LONGER, 2 * self._longer)
            raise failure from TimeoutError("the EC2 instance metadata service did not respond in time")
        self._longer = 1
        _log.debug("credentials found by botocore's provider %s", found.method)
        return FoundCredentials(
            f"botocore's provider {found.method!r}", found.get_frozen_credentials, found, self._clock
        )


def _from_environment(environ: Mapping[str, str]) -> Credentials | None:
    """Return the keys in the environment, if botocore would use exactly these.

    Three cases are left to botocore: a profile named in the environment, which comes after the keys but must exist; an
    expiry time, which must be watched; and half a pair of keys, which is an error.
    """
    if any(name in environ for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_CREDENTIAL_EXPIRATION")):
        return None
    access_key, secret_key = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    if not access_key or not secret_key:
        return None
    token = next((environ[name] for name in _TOKEN_VARIABLES if environ.get(name)), None)
    return Credentials(access_key, secret_key, token)


def _nowhere(session: Session, profile: str | None) -> str:
    """Return the error text for a search that found nothing."""
    environment = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if profile is not None:
        environment = f"not the environment's {environment}, since a profile was named"
    name = session.get_config_variable("profile") or "default"
    files = " and ".join([session.get_config_variable(f"{kind}_file") for kind in ("credentials", "config")])
    metadata = "the EC2 instance metadata service"
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        metadata += " (switched off by AWS_EC2_METADATA_DISABLED)"
    return (
        f"no AWS credentials found. Looked in: {environment}; profile {name!r} in {files} "
        "(keys, SSO, role, process); AWS_WEB_IDENTITY_TOKEN_FILE; the container's "
        f"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI; {metadata}. {NO_CREDENTIALS_ADVICE}"
    )
