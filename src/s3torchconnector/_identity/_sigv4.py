"""AWS Signature Version 4 for S3: pure functions, no I/O, no clock of their own.

Strategy: one request costs one SHA-256 and one HMAC. Everything that is the same for all requests (the signing key of
four chained HMACs, the credential scope, the start of the authorization header) is derived once a day and kept in one
tuple, which a single assignment replaces, so that threads need no lock. What most requests of a second share is
prepared once (``Signer.prepare``) and kept by the builder of their heads.

S3 differs from other services: the path is encoded once and never normalised, and
``x-amz-content-sha256`` is part of the signature. Rules: "Signature Calculations for the Authorization
Header" in the Amazon S3 API reference.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import quote

__all__ = [
    "EMPTY_SHA256",
    "UNSIGNED_PAYLOAD",
    "Credentials",
    "Signature",
    "Signer",
    "canonical_query",
    "canonical_request",
    "quote_path",
    "signing_key",
    "string_to_sign",
]

UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()

_ALGORITHM = "AWS4-HMAC-SHA256"
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_.~/-]*")


class Credentials(NamedTuple):
    """One consistent set of keys. Its ``repr`` never contains the secret or the token."""

    access_key: str
    secret_key: str
    token: str | None = None

    def __repr__(self) -> str:
        token = "..." if self.token else None
        return f"Credentials(access_key={self.access_key!r}, secret_key=..., token={token})"


def quote_path(key: str) -> str:
    """Return ``key`` as it is written in a URL and in the canonical request: ``/`` and unreserved characters are kept,
    every other byte of its UTF-8 form becomes ``%XX``. Nothing is normalised: ``..`` and ``//`` are ordinary parts of
    S3 keys.

    Raises:
        UnicodeEncodeError: the key contains a lone surrogate, which has no UTF-8 form.
    """
    return key if _PLAIN_PATH.fullmatch(key) else quote(key, safe="/")


def canonical_query(params: Iterable[tuple[str, str]]) -> str:
    """Return the query string, encoded and in the order that is signed; send exactly this."""
    pairs = sorted((quote(name, safe=""), quote(value, safe="")) for name, value in params)
    return "&".join([f"{name}={value}" for name, value in pairs])


def canonical_request(method: str, path: str, query: str, headers: Mapping[str, str], payload_hash: str) -> str:
    """Return the text that identifies a request.

    Args:
        method: the HTTP method.
        path: the path as sent, already encoded (``quote_path``).
        query: the query string as sent (``canonical_query``), "" for none.
        headers: lowercase names to values: all headers that are signed.
        payload_hash: the value of ``x-amz-content-sha256``.
    """
    pairs = sorted(headers.items())
    lines = "".join([f"{name}:{value}\n" for name, value in pairs])
    if " " in lines or "\t" in lines:
        # Runs of white space count as one space, and as none at the ends: the receiver may have folded them.
        lines = "".join([f"{name}:{' '.join(value.split())}\n" for name, value in pairs])
    names = ";".join([name for name, _ in pairs])
    return f"{method}\n{path}\n{query}\n{lines}\n{names}\n{payload_hash}"


def string_to_sign(timestamp: str, scope: str, canonical_request: str) -> str:
    """Return the text whose HMAC is the signature; ``timestamp`` is ``YYYYMMDDTHHMMSSZ``."""
    digest = hashlib.sha256(canonical_request.encode()).hexdigest()
    return f"{_ALGORITHM}\n{timestamp}\n{scope}\n{digest}"


def signing_key(secret_key: str, date: str, region: str, service: str) -> bytes:
    """Return the key that signs every request of one day (``date`` is ``YYYYMMDD``), region and service."""
    key = f"AWS4{secret_key}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


class _Day(NamedTuple):
    """What one set of credentials signs with on one day (UTC)."""

    credentials: Credentials
    date: str
    key: bytes
    scope: str
    authorization: str


class Signature(NamedTuple):
    """A signature without the path: it signs all requests that differ in nothing else.

    Attributes:
        headers: what to add to the request besides ``authorization``.
    """

    headers: dict[str, str]
    key: bytes
    timestamp: str
    scope: str
    before_path: str  # of the canonical request
    after_path: str
    before_signature: str  # of the header

    def __repr__(self) -> str:
        return f"Signature(headers={sorted(self.headers)}, key=..., ...)"

    def authorization(self, path: str) -> str:
        """The header that signs the request for ``path``, which is encoded (``quote_path``)."""
        text = string_to_sign(self.timestamp, self.scope, f"{self.before_path}{path}{self.after_path}")
        return self.before_signature + hmac.digest(self.key, text.encode(), "sha256").hex()


class Signer:
    """Signs requests to one region and service; safe to share between threads.

    Args:
        region: the signing region.
        service: ``s3``, ``s3express``, ``s3-object-lambda`` or ``s3-outposts``, as the endpoint rules say.
        token_header: the header that carries the session token; directory buckets use
            ``x-amz-s3session-token``.
    """

    def __init__(self, region: str, service: str = "s3", *, token_header: str = "x-amz-security-token") -> None:
        self._scope_tail = (region, service)
        self._token_header = token_header
        self._day: _Day | None = None

    def sign(
        self,
        credentials: Credentials,
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        payload_hash: str,
        timestamp: str,
    ) -> dict[str, str]:
        """Return the headers to add to the request: ``authorization``, ``x-amz-date``,
        ``x-amz-content-sha256`` and, with temporary credentials, the token.

        Args:
            credentials: whose signature.
            method, path, query, payload_hash: see ``canonical_request``.
            headers: lowercase names, ``host`` among them; each is signed, so leave out what a proxy may
                change (``user-agent``, ``connection``). Not modified.
            timestamp: the time of the request, ``YYYYMMDDTHHMMSSZ`` in UTC.
        """
        signature = self.prepare(credentials, method, query, headers, payload_hash, timestamp)
        return {**signature.headers, "authorization": signature.authorization(path)}

    def prepare(
        self,
        credentials: Credentials,
        method: str,
        query: str,
        headers: Mapping[str, str],
        payload_hash: str,
        timestamp: str,
    ) -> Signature:
        """Do the part of ``sign`` that does not depend on the path; see there."""
        day = self._day
        if day is None or day.credentials != credentials or not timestamp.startswith(day.date):
            self._day = day = self._derive(credentials, timestamp[:8])
        added = {"x-amz-content-sha256": payload_hash, "x-amz-date": timestamp}
        if credentials.token:
            added[self._token_header] = credentials.token
        pairs = {**headers, **added}
        around = canonical_request(method, "", query, pairs, payload_hash)
        names = ";".join(sorted(pairs))
        return Signature(
            added,
            day.key,
            timestamp,
            day.scope,
            around[: len(method) + 1],
            around[len(method) + 1 :],
            f"{day.authorization}{names}, Signature=",
        )

    def _derive(self, credentials: Credentials, date: str) -> _Day:
        region, service = self._scope_tail
        scope = f"{date}/{region}/{service}/aws4_request"
        return _Day(
            credentials,
            date,
            signing_key(credentials.secret_key, date, region, service),
            scope,
            f"{_ALGORITHM} Credential={credentials.access_key}/{scope}, SignedHeaders=",
        )
