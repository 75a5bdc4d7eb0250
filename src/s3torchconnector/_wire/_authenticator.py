"""Who requests are signed as, and when: credentials, directory-bucket sessions, and the server's clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3CredentialsError, S3Exception, S3TimeoutError
from s3torchconnector._identity import Credentials, Endpoint, Signer, credentials_provider, lookup_attempts
from s3torchconnector._wire._deadline import Deadline
from s3torchconnector._wire._documents import parse_http_date
from s3torchconnector._wire._operations import Request
from s3torchconnector._wire._service_errors import EXPIRED_CODES
from s3torchconnector._wire._sessions import Sessions
from s3torchconnector._wire._shared_lookup import SharedLookup

_TOKEN_HEADER = "x-amz-security-token"
_UNSUSPECTED_SECONDS = 60.0
_SKEW = 300.0  # seconds; S3 refuses requests that are 15 minutes off, and some servers sooner
_SESSION_TOKEN_HEADER = "x-amz-s3session-token"


class Identity(NamedTuple):
    """A signer and the credentials to sign with; both None for unsigned requests."""

    signer: Signer | None
    credentials: Credentials | None


class NoCredentialsYet(S3Exception):
    """Who signs has to be looked up first, and must not be waited for. Never reaches users."""


class Authenticator:
    """Gives each request its signer, credentials and timestamp. Thread-safe."""

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
        # Apart, since it looks for others than those that were found.
        self._forced_lookup: SharedLookup[Credentials | None] = SharedLookup("new AWS credentials", attempts)
        # Those for which others were sought in vain on suspicion, and until when they are above it.
        self._unsuspected: tuple[Credentials | None, float] = (None, 0.0)
        self._sessions = Sessions(request_session, lambda: self._clock() + self._clock_offset)
        self._clock = clock
        self._clock_offset = 0.0  # in use
        self._server_offset = 0.0  # as last seen
        self._signers: dict[tuple[str, str, str], Signer] = {}
        self._timestamp = (0, "")

    def identity_for(self, request: Request, endpoint: Endpoint, deadline: Deadline | None) -> Identity:
        """What to sign ``request`` with: nothing at all for unsigned clients.

        Raises:
            NobodyYet: that has to be waited for, and there is no ``deadline``.
            S3CredentialsError: there are no credentials.
            S3TimeoutError: they did not come in time.
        """
        if self._unsigned:
            return Identity(None, None)
        token_header = _TOKEN_HEADER
        if endpoint.session_auth and request.operation != "CreateSession":
            credentials = self._sessions.credentials(request.bucket, deadline)
            token_header = _SESSION_TOKEN_HEADER
        else:
            credentials = self._provider.valid()
            if credentials is None and deadline is not None:
                credentials = self._lookup.join(self._provider.get, deadline)
            elif self._provider.is_due:
                self._lookup.start(self._provider.get)
        if credentials is None:
            raise NoCredentialsYet("who signs has to be looked up first")
        return Identity(self._signer(endpoint, token_header), credentials)

    def timestamp(self) -> str:
        """Now, by the server's clock as far as we know it, as signatures want it."""
        second = int(self._clock() + self._clock_offset)
        cached_second, text = self._timestamp
        if cached_second != second:
            text = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
            self._timestamp = (second, text)
        return text

    def notice(self, headers: Mapping[str, str]) -> None:
        """Take down the server's clock from the headers of a refusal, for ``mend`` to follow."""
        server_time = parse_http_date(headers.get("date", ""))
        if server_time:
            self._server_offset = server_time - self._clock()

    def mend(self, error: S3Exception, identity: Identity, request: Request, deadline: Deadline) -> bool:
        """Remove the cause of a refusal: refresh expired credentials, follow the server's clock. False if not.

        Raises:
            S3CredentialsError: the refresh failed.
        """
        # The response to a HEAD has no document: there, a clock that is off looks like any lack of permission.
        off = abs(self._server_offset - self._clock_offset) > _SKEW and identity.credentials is not None
        if error.code == "RequestTimeTooSkewed" or (off and error.code is None and error.status == 403):
            self._clock_offset = self._server_offset
            return True
        # The answer to a HEAD has no document: there, expired credentials look like any bad request.
        untold = error.code is None and error.status == 400
        if identity.credentials is None or not (untold or error.code in EXPIRED_CODES):
            return False
        if request.operation != "CreateSession" and self._sessions.reject(request.bucket, identity.credentials):
            return True
        return self._find_others(identity.credentials, deadline, insist=not untold)

    def _find_others(self, rejected: Credentials, deadline: Deadline, *, insist: bool) -> bool:
        """Look for other credentials; False, or an error if that is to ``insist``, where there are none."""
        now = time.monotonic()
        unsuspected, until = self._unsuspected
        if not insist and rejected == unsuspected and now < until:
            return False

        def look() -> Credentials | None:
            try:
                return self._provider.refresh(rejected)
            except S3CredentialsError:
                if insist:
                    raise
                return None

        found: Credentials | None = rejected
        while found == rejected or (insist and found is None):  # as another's look-up may find that was under way
            try:
                found = self._forced_lookup.join(look, deadline)
            except (S3CredentialsError, S3TimeoutError):
                if insist:
                    raise
                found = None
        if found is None:
            self._unsuspected = rejected, now + _UNSUSPECTED_SECONDS
        return found is not None

    def _signer(self, endpoint: Endpoint, token_header: str) -> Signer:
        key = (endpoint.region, endpoint.service, token_header)
        signer = self._signers.get(key)
        if signer is None:
            signer = self._signers[key] = Signer(endpoint.region, endpoint.service, token_header=token_header)
        return signer


def _attempts(error: S3Exception, most: int) -> int:
    return lookup_attempts(error, most) if isinstance(error, S3CredentialsError) else 1
