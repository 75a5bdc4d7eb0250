"""Who requests are signed as, and when: credentials, directory-bucket sessions, and the server's clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3CredentialsError, S3Exception
from s3torchconnector._identity import Credentials, Endpoint, Signer, credentials_provider
from s3torchconnector._wire._documents import parse_http_date, parse_session
from s3torchconnector._wire._requests import Request, create_session
from s3torchconnector._wire._service_errors import EXPIRED_CODES

_SESSION_MARGIN = 30.0  # seconds before its end that a directory bucket's session is replaced
_SKEW = 300.0  # seconds; S3 refuses requests that are 15 minutes off, and some servers sooner
_SESSION_TOKEN_HEADER = "x-amz-s3session-token"


class Identity(NamedTuple):
    """A signer and the credentials to sign with; both None for unsigned requests."""

    signer: Signer | None
    credentials: Credentials | None


class Authority:
    """Gives each request its signer, credentials and timestamp. Thread-safe."""

    def __init__(
        self,
        config: S3ClientConfig,
        region: str,
        request_session: Callable[[Request], bytes],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._provider = credentials_provider(config, region=region)
        self._request_session = request_session
        self._clock = clock
        self._clock_offset = 0.0  # in use
        self._server_offset = 0.0  # as last seen
        self._signers: dict[tuple[str, str, str], Signer] = {}
        self._sessions: dict[str, tuple[Credentials, float]] = {}
        self._session_lock = threading.Lock()
        self._timestamp = (0, "")

    def identity_for(self, request: Request, endpoint: Endpoint) -> Identity:
        """What to sign ``request`` with: nothing at all for unsigned clients.

        Raises:
            S3CredentialsError: there are no credentials.
        """
        credentials = self._provider.get()
        if credentials is None:
            return Identity(None, None)
        token_header = "x-amz-security-token"
        if endpoint.session_auth and request.operation != "CreateSession":
            credentials = self._session_credentials(request.bucket)
            token_header = _SESSION_TOKEN_HEADER
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

    def mend(self, error: S3Exception, identity: Identity, bucket: str) -> bool:
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
        with self._session_lock:
            session = self._sessions.pop(bucket, None)
        if session is None:
            try:
                self._provider.refresh(identity.credentials)
            except S3CredentialsError:
                if untold:
                    return False
                raise
        return True

    def _signer(self, endpoint: Endpoint, token_header: str) -> Signer:
        key = (endpoint.region, endpoint.service, token_header)
        signer = self._signers.get(key)
        if signer is None:
            signer = self._signers[key] = Signer(endpoint.region, endpoint.service, token_header=token_header)
        return signer

    def _session_credentials(self, bucket: str) -> Credentials:
        with self._session_lock:
            credentials, expires = self._sessions.get(bucket, (None, 0.0))
            if credentials is None or expires - self._clock() < _SESSION_MARGIN:
                session = parse_session(self._request_session(create_session(bucket)))
                credentials = Credentials(session.access_key, session.secret_key, session.token)
                self._sessions[bucket] = (credentials, session.expires)
            return credentials
