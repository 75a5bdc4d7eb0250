"""What requests are signed with: credentials, sessions of directory buckets, and the time by the server's clock."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3CredentialsError, S3Exception, S3TimeoutError
from s3torchconnector._identity import (
    Credentials,
    Endpoint,
    FoundCredentials,
    Signer,
    credentials_provider,
    lookup_attempts,
)
from s3torchconnector._late_imports import no_fork
from s3torchconnector._wire._deadline import Deadline
from s3torchconnector._wire._documents import parse_http_date
from s3torchconnector._wire._operations import Request
from s3torchconnector._wire._service_errors import EXPIRED_CODES
from s3torchconnector._wire._shared_lookup import SharedLookup

if TYPE_CHECKING:
    from s3torchconnector._identity import AsymmetricSigner
    from s3torchconnector._wire._sessions import Sessions

_TOKEN_HEADER = "x-amz-security-token"
_TRUSTED_SECONDS = 60.0  # for which credentials are not suspected again after a search found no others
_SKEW = 300.0  # seconds; S3 refuses requests that are 15 minutes off, other servers may refuse sooner
# Copies in directory buckets are signed with the keys of the role, see API_CopyObject.html and API_UploadPartCopy.html.
_WITHOUT_SESSION = frozenset({"CreateSession", "CopyObject", "UploadPartCopy"})
_SESSION_TOKEN_HEADER = "x-amz-s3session-token"


class Identity(NamedTuple):
    """A signer and the credentials to sign with; both None for unsigned requests."""

    signer: "Signer | AsymmetricSigner | None"
    credentials: Credentials | None


class NoCredentialsYet(S3Exception):
    """Credentials have to be looked up first, and the caller must not wait. Never reaches users."""


class Authenticator:
    """Gives each request its signer, credentials and timestamp. Thread-safe."""

    _sessions: "Sessions | None" = None  # of directory buckets

    def __init__(
        self,
        config: S3ClientConfig,
        region: str,
        request_session: Callable[[Request], tuple[bytes, Mapping[str, str]]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._provider = credentials_provider(config, region=region)
        self._unsigned = config.unsigned
        attempts = partial(_attempts, most=config.max_attempts)
        self._lookup: SharedLookup[Credentials | None] = SharedLookup("the AWS credentials", attempts)
        # Separate, because it looks for credentials other than those that were rejected.
        self._forced_lookup: SharedLookup[Credentials | None] = SharedLookup("new AWS credentials", attempts)
        # Credentials that a search on mere suspicion confirmed, and until when they are trusted.
        self._trusted: tuple[Credentials | None, float] = (None, 0.0)
        self._request_session = request_session
        self._encryption = config.write_options._encryption_headers() if config.write_options else None
        self._clock = clock
        self._clock_offset = 0.0  # in use
        self._server_offset = 0.0  # in the latest refusal
        self._signers: dict[tuple[str, str, str], Signer | AsymmetricSigner] = {}
        self._timestamp = (0, "")

    def __repr__(self) -> str:
        sessions = self._sessions.lookups if self._sessions else []
        lookups: list[SharedLookup[Any]] = [self._lookup, self._forced_lookup, *sessions]
        return f"<Authenticator [{', '.join([repr(each) for each in lookups if each.is_under_way]) or 'ready'}]>"

    def identity_for(self, request: Request, endpoint: Endpoint, deadline: Deadline | None) -> Identity:
        """What to sign ``request`` with: nothing at all for unsigned clients.

        Raises:
            NoCredentialsYet: the call would have to wait, and ``deadline`` is None.
            S3CredentialsError: there are no credentials.
            S3TimeoutError: they were not found in time.
        """
        if self._unsigned:
            return Identity(None, None)
        token_header = _TOKEN_HEADER
        if endpoint.session_auth and request.operation not in _WITHOUT_SESSION:
            credentials = (self._sessions or self._new_sessions()).credentials(request.bucket, deadline)
            token_header = _SESSION_TOKEN_HEADER
        else:
            credentials = self._provider.valid()
            if credentials is None and deadline is not None:
                credentials = self._lookup.join(self._provider.get, deadline)
            elif self._provider.is_due:
                self._lookup.start(self._provider.get)
        if credentials is None:
            raise NoCredentialsYet("credentials have to be looked up first")
        return Identity(self._signer(endpoint, token_header), credentials)

    def find(self, deadline: Deadline) -> FoundCredentials | None:
        """Where credentials come from and how long they last, looked up if need be; None if nothing is signed.

        Raises:
            S3CredentialsError: there are none.
            S3TimeoutError: they were not found in time.
        """
        if not self._unsigned and self._provider.valid() is None:
            self._lookup.join(self._provider.get, deadline)
        return self._provider.found

    def timestamp(self) -> str:
        """The time by the server's clock, as far as it is known, in the format of signatures."""
        second = int(self._clock() + self._clock_offset)
        cached_second, text = self._timestamp
        if cached_second != second:
            text = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
            self._timestamp = (second, text)
        return text

    def note_clock(self, headers: Mapping[str, str]) -> None:
        """Note the server's clock from the headers of a refusal, for ``recover`` to follow."""
        server_time = parse_http_date(headers.get("date", ""))
        if server_time:
            self._server_offset = server_time - self._clock()

    def recover(self, error: S3Exception, identity: Identity, request: Request, deadline: Deadline) -> bool:
        """Remove the cause of a refusal: renew expired credentials, follow the server's clock. False if neither helps.

        Raises:
            S3CredentialsError: the credentials could not be renewed.
        """
        # The response to HEAD has no document, so a wrong clock looks like a lack of permission.
        off = abs(self._server_offset - self._clock_offset) > _SKEW and identity.credentials is not None
        if error.code == "RequestTimeTooSkewed" or (off and error.code is None and error.status == 403):
            self._clock_offset = self._server_offset
            return True
        # For the same reason, expired credentials look like any bad request.
        is_suspicion = error.code is None and error.status == 400
        if identity.credentials is None or not (is_suspicion or error.code in EXPIRED_CODES):
            return False
        sessions = self._sessions if request.operation not in _WITHOUT_SESSION else None
        if sessions is not None and sessions.reject(request.bucket, identity.credentials):
            return True
        return self._find_others(identity.credentials, deadline, insist=not is_suspicion)

    def _new_sessions(self) -> "Sessions":
        with no_fork:
            from s3torchconnector._wire._sessions import Sessions  # here: few buckets are directory buckets

        made = Sessions(self._request_session, lambda: self._clock() + self._clock_offset, encryption=self._encryption)
        first: Sessions = self.__dict__.setdefault("_sessions", made)  # another thread may have made some meanwhile
        return first

    def _find_others(self, rejected: Credentials, deadline: Deadline, *, insist: bool) -> bool:
        """Look for other credentials. If there are none: raise if ``insist``, else return False."""
        now = time.monotonic()
        trusted, until = self._trusted
        if not insist and rejected == trusted and now < until:
            return False

        def look() -> Credentials | None:
            try:
                return self._provider.refresh(rejected)
            except S3CredentialsError:
                if insist:
                    raise
                return None

        found: Credentials | None = rejected
        while found == rejected or (insist and found is None):  # a look-up already under way may find them
            try:
                found = self._forced_lookup.join(look, deadline)
            except (S3CredentialsError, S3TimeoutError):
                if insist:
                    raise
                found = None
        if found is None:
            self._trusted = rejected, now + _TRUSTED_SECONDS
        return found is not None

    def _signer(self, endpoint: Endpoint, token_header: str) -> "Signer | AsymmetricSigner":
        region, service = endpoint.region, endpoint.service
        signer = self._signers.get((region, service, token_header))  # no region has the name of a set of regions
        if signer is None:
            signer = (
                _asymmetric_signer(region, service)
                if endpoint.asymmetric
                else Signer(region, service, token_header=token_header)
            )
            self._signers[region, service, token_header] = signer
        return signer


def _asymmetric_signer(regions: str, service: str) -> "AsymmetricSigner":
    with no_fork:
        from s3torchconnector._identity import AsymmetricSigner  # here: few buckets need it

    return AsymmetricSigner(regions, service)


def _attempts(error: S3Exception, most: int) -> int:
    return lookup_attempts(error, most) if isinstance(error, S3CredentialsError) else 1
