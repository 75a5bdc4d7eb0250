"""Who signs: credentials from everywhere AWS tools find them, fresh whenever they are asked for.

Strategy: botocore looks them up and renews them before they expire; this module adds what a client of many
threads needs. Nothing is looked up before the first request. One thread looks while the others wait and share
what it finds, or its error, so that an unreachable metadata service costs its timeout once and not once a
thread. Renewal is left to botocore, in which one thread refreshes while the others sign with what is still
valid; it is asked at most once a second, since asking takes longer than signing.

Keys in the environment, with no profile named, need no botocore at all. Importing it would cost more than a
request. A provider belongs to one process: whoever owns it builds another after a fork.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3CredentialsError
from s3torchconnector._identity._sigv4 import Credentials
from s3torchconnector._late_imports import no_fork

if TYPE_CHECKING:
    from botocore.session import Session

_log = logging.getLogger(__name__)

_RENEWAL_CHECK_SECONDS = 1.0

# The first one wins, as in botocore's EnvProvider.
_TOKEN_VARIABLES = ("AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")


class CredentialsProvider(Protocol):
    """Where the credentials of requests come from; every method may be called from any thread."""

    def get(self) -> Credentials | None:
        """Return what to sign the next request with; ``None`` for unsigned requests.

        Raises:
            S3CredentialsError: there are none, or they could not be retrieved.
        """

    def refresh(self, rejected: Credentials) -> Credentials:
        """Return other credentials than those S3 has just called expired or unknown: looks them up again,
        unless another thread has done so.

        Raises:
            S3CredentialsError: there are none, or the same ones were found again.
        """


def credentials_provider(
    config: S3ClientConfig, *, region: str | None = None, clock: Callable[[], float] = time.monotonic
) -> CredentialsProvider:
    """Return the provider that ``config`` asks for. Looks nothing up yet.

    Args:
        config: ``unsigned`` and ``profile`` are used.
        region: where AWS STS is asked for the credentials of a role; ``None`` takes the configured region. A
            client of botocore uses its own region.
        clock: seconds, to space the questions whether it is time to renew.
    """
    return _Unsigned() if config.unsigned else _LookedUp(lambda: _look_up(config.profile, region, clock))


class _Unsigned:
    def get(self) -> None:
        return None

    def refresh(self, rejected: Credentials) -> Credentials:
        raise S3CredentialsError("S3ClientConfig(unsigned=True) sends unsigned requests: no credentials to renew")


class _Found:
    """Credentials and the way to renew them."""

    def __init__(self, source: str, read: Callable[[], Any], checked_every: float, clock: Callable[[], float]) -> None:
        self.source = source
        self._read = read
        self._checked_every = checked_every
        self._clock = clock
        self.latest = self._checked()

    def credentials(self) -> Credentials:
        if self._clock() < self._check_at:
            return self.latest
        fresh = self._checked()
        if fresh != self.latest:  # otherwise the object stays the same, which is how a signer knows its key
            self.latest = fresh
        return self.latest

    def _checked(self) -> Credentials:
        frozen = _guarded(self._read)
        self._check_at = self._clock() + self._checked_every
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token or None)


class _LookedUp:
    """Looks up at first use and after a rejection.

    ``_outcome`` is what the latest look-up found and ``_lookups`` how many there were. Both are written under
    the lock and read without it: a thread that sees an old count finds out when it has the lock.
    """

    def __init__(self, look_up: Callable[[], _Found]) -> None:
        self._find = look_up
        self._lock = threading.Lock()
        self._lookups = 0
        self._outcome: _Found | S3CredentialsError = S3CredentialsError("not looked up yet")

    def get(self) -> Credentials:
        seen, outcome = self._lookups, self._outcome
        found = outcome if isinstance(outcome, _Found) else self._look_up(seen)
        return found.credentials()

    def refresh(self, rejected: Credentials) -> Credentials:
        seen, outcome = self._lookups, self._outcome
        if isinstance(outcome, _Found) and outcome.latest != rejected:
            return outcome.credentials()
        found = self._look_up(seen)
        fresh = found.credentials()
        if fresh == rejected:
            raise S3CredentialsError(
                f"S3 rejected the credentials of access key {rejected.access_key!r} as expired or unknown, "
                f"and {found.source} still names the same ones: renew them there"
            )
        return fresh

    def _look_up(self, seen: int) -> _Found:
        with self._lock:
            if self._lookups == seen:
                try:
                    self._outcome = self._find()
                except S3CredentialsError as error:
                    self._outcome = error
                self._lookups += 1
            outcome = self._outcome
        if isinstance(outcome, _Found):
            return outcome
        # A new error in each thread: raising one object in several would mix their tracebacks.
        raise S3CredentialsError(str(outcome)) from outcome.__cause__


def _look_up(profile: str | None, region: str | None, clock: Callable[[], float]) -> _Found:
    static = _from_environment(os.environ) if profile is None else None
    if static is not None:
        return _Found("the environment", lambda: static, math.inf, clock)
    with no_fork:
        from botocore.credentials import create_credential_resolver
        from botocore.session import Session

    session = Session(profile=profile)
    found = _guarded(lambda: create_credential_resolver(session, region_name=region).load_credentials())
    if found is None:
        raise S3CredentialsError(_nowhere(session, profile))
    _log.debug("credentials found by botocore's provider %s", found.method)
    source = f"botocore's provider {found.method!r}"
    return _Found(source, found.get_frozen_credentials, _RENEWAL_CHECK_SECONDS, clock)


def _from_environment(environ: Mapping[str, str]) -> Credentials | None:
    """Return the keys that the environment holds, where botocore would take exactly these.

    A profile named in the environment comes after the keys, but must exist; an expiry time must be watched;
    half a pair is an error. These three are left to botocore.
    """
    if any(name in environ for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_CREDENTIAL_EXPIRATION")):
        return None
    access_key, secret_key = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    if not access_key or not secret_key:
        return None
    token = next((environ[name] for name in _TOKEN_VARIABLES if environ.get(name)), None)
    return Credentials(access_key, secret_key, token)


def _guarded(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        # A provider may raise anything: the OSError of a process, the KeyError of an incomplete answer.
        raise S3CredentialsError(
            f"the AWS credentials could not be retrieved: {type(error).__name__}: {error}"
        ) from error


def _nowhere(session: Session, profile: str | None) -> str:
    """Return the message for a search that ended with nothing."""
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
        f"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI; {metadata}. "
        "Set the two variables, run `aws configure` or `aws sso login`, or name a profile with "
        "S3ClientConfig(profile=...); for a public bucket, S3ClientConfig(unsigned=True) needs no credentials"
    )
