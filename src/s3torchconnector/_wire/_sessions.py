"""Sessions of directory buckets: credentials from CreateSession, for one bucket and a few minutes.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateSession.html
How long a session lasts is computed from the server's clock alone (its expiration less the ``Date`` of the response),
because the local clock may be wrong. A session that ends soon is replaced while requests go on using it.
"""

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from s3torchconnector._errors import S3AccessDeniedError, S3Exception, S3ProtocolError
from s3torchconnector._identity import Credentials, refuse_unsendable
from s3torchconnector._jitter import jitter
from s3torchconnector._uri import display_uri
from s3torchconnector._wire._deadline import Deadline
from s3torchconnector._wire._documents import parse, parse_http_date, parse_timestamp, required_text
from s3torchconnector._wire._operations import Request, create_session
from s3torchconnector._wire._shared_lookup import SharedLookup

_log = logging.getLogger(__name__)
_SHORTEST = 60.0  # seconds that a new session is assumed to last, whatever the clocks say
_EARLY = 60.0  # seconds before its end that a session is replaced
_MARGIN = 5.0  # seconds before its end from which it signs nothing: requests take a while to arrive
_AGAIN = 10.0  # seconds at most until a replacement that failed is tried again


class _Session(NamedTuple):
    credentials: Credentials
    due: float  # when to replace it
    end: float


class Sessions:
    """The sessions of one client. Thread-safe.

    Args:
        request: sends a request; returns the document and the headers of its response.
        now: the time by the server's clock, as far as it is known.
        clock: measures how long a session has lasted, in seconds.
        encryption: the headers that say how what is stored is encrypted.
    """

    def __init__(
        self,
        request: Callable[[Request], tuple[bytes, Mapping[str, str]]],
        now: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
        encryption: Mapping[str, str] | None = None,
    ) -> None:
        self._encryption = encryption or {}
        self._request = request
        self._now = now
        self._clock = clock
        self._sessions: dict[str, _Session] = {}
        self._lookups: dict[str, SharedLookup[Credentials]] = {}

    @property
    def lookups(self) -> list[SharedLookup[Credentials]]:
        """The look-ups of all buckets so far."""
        return list(self._lookups.values())

    def credentials(self, bucket: str, deadline: Deadline | None) -> Credentials | None:
        """Return what to sign requests to ``bucket`` with; None if the call would have to wait without a ``deadline``.

        Raises:
            S3Exception: no session could be created, or not in time.
        """
        session, now = self._sessions.get(bucket), self._clock()
        if session is not None and now < session.due:
            return session.credentials
        lookup = self._lookups.get(bucket)
        if lookup is None:
            what = f"the session of the directory bucket {display_uri(bucket)}"
            lookup = self._lookups.setdefault(bucket, SharedLookup(what))
        if session is not None and now < session.end:
            later = now + _AGAIN * (1.0 + jitter()) / 2.0
            self._sessions[bucket] = session._replace(due=min(session.end, later))  # in case it fails
            lookup.start(partial(self._create, bucket))
            return session.credentials
        return None if deadline is None else lookup.join(partial(self._create, bucket), deadline)

    def reject(self, bucket: str, credentials: Credentials) -> bool:
        """Drop the session with these credentials, which S3 called expired; False if the bucket has no sessions."""
        session = self._sessions.get(bucket)
        if session is not None and session.credentials == credentials:
            self._sessions.pop(bucket, None)
        return bucket in self._lookups

    def _create(self, bucket: str) -> Credentials:
        began = self._clock()
        document, headers = self._document(bucket)
        credentials, expires = parse_session(document)
        refuse_unsendable(credentials, f"of the session of {display_uri(bucket)}")
        lasts = max(_SHORTEST, expires - (parse_http_date(headers.get("date", "")) or self._now()))
        due, end = began + max(lasts / 2.0, lasts - _EARLY), began + lasts - _MARGIN
        self._sessions[bucket] = _Session(credentials, due, end)
        return credentials

    def _document(self, bucket: str) -> tuple[bytes, Mapping[str, str]]:
        try:
            return self._request(create_session(bucket, options=self._encryption))
        except S3AccessDeniedError:
            try:  # without a mode, S3 creates sessions that may write, which this role may not
                response = self._request(create_session(bucket, "ReadOnly", options=self._encryption))
            except S3Exception as error:
                _log.debug("%s: S3 grants no read-only session either: %s", display_uri(bucket), error)
            else:
                _log.info("%s: S3 grants these credentials a read-only session only", display_uri(bucket))
                return response
            raise


def parse_session(document: bytes) -> tuple[Credentials, float]:
    """The credentials of a new session, and when they end, in seconds since 1970."""
    root = parse(document)
    names = ("AccessKeyId", "SecretAccessKey", "SessionToken")
    access_key, secret_key, token = (required_text(root, name) for name in names)
    try:
        expires = parse_timestamp(required_text(root, "Expiration"))
    except ValueError as error:
        raise S3ProtocolError(f"the session's Expiration is malformed: {error}") from error
    return Credentials(access_key, secret_key, token), expires
