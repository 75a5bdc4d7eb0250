"""A request's head as bytes: addressed, signed and serialised. Pure but for what it is given.

Every header but those that proxies may touch is signed. The payload is not hashed (``UNSIGNED-PAYLOAD``): a SHA-256
over every uploaded byte would cost more than sending it, and integrity is the checksum headers' job.
"""

from __future__ import annotations

from typing import NamedTuple

from s3torchconnector._identity import (
    EMPTY_SHA256,
    UNSIGNED_PAYLOAD,
    Credentials,
    Endpoint,
    Signature,
    Signer,
    canonical_query,
    quote_path,
)
from s3torchconnector._wire._operations import CHECKSUM_MODE, Request
from s3torchconnector._wire._proxy import Proxy

_METHODS_WITH_BODY = ("PUT", "POST")


class _Form(NamedTuple):
    """A head around its path: that of all requests within a second that differ in nothing else."""

    key: tuple[object, ...]
    before_path: str
    behind_path: str  # up to the signature
    signature: Signature | None


class HeadBuilder:
    """What all requests of a client share. Thread-safe: the form that was used last is replaced by one assignment.

    Args:
        user_agent: who asks.
        requester_pays: whether they pay.
        checksums: whether to ask for those of what is downloaded.
    """

    def __init__(self, user_agent: str, requester_pays: bool = False, checksums: bool = False) -> None:
        self._user_agent = user_agent
        self._requester_pays = requester_pays
        self._checksums = checksums
        self._form: _Form | None = None

    def build(
        self,
        request: Request,
        endpoint: Endpoint,
        signer: Signer | None,
        credentials: Credentials | None,
        timestamp: str,
        proxy: Proxy | None = None,
    ) -> bytes:
        """The head of ``request`` at ``endpoint``, signed when there are credentials.

        Raises:
            ValueError: a header value holds a line break.
        """
        size = sum(map(len, request.body)) if request.body else 0
        # All that ``_new_form`` looks at.
        key = (
            timestamp,
            endpoint,
            proxy,
            signer,
            credentials,
            request.operation,
            request.method,
            request.query,
            request.headers,
            size,
            not request.body,
        )
        form = self._form
        if form is None or form.key != key:
            self._form = form = self._new_form(key, request, size, endpoint, signer, credentials, timestamp, proxy)
        path = endpoint.path + ("/" + quote_path(request.key) if request.key else "") or "/"
        signed = f"authorization: {form.signature.authorization(path)}\r\n" if form.signature else ""
        return f"{form.before_path}{path}{form.behind_path}{signed}\r\n".encode("latin-1")

    def _new_form(
        self,
        key: tuple[object, ...],
        request: Request,
        size: int,
        endpoint: Endpoint,
        signer: Signer | None,
        credentials: Credentials | None,
        timestamp: str,
        proxy: Proxy | None,
    ) -> _Form:
        query = canonical_query(request.query)
        headers = {"host": endpoint.host_header, **request.headers}
        if self._requester_pays:
            headers["x-amz-request-payer"] = "requester"
        if self._checksums and request.operation == "GetObject":
            headers.update(CHECKSUM_MODE)
        signature = None
        if signer is not None and credentials is not None:
            payload = UNSIGNED_PAYLOAD if request.body else EMPTY_SHA256
            signature = signer.prepare(credentials, request.method, query, headers, payload, timestamp)
            headers.update(signature.headers)
        if request.method in _METHODS_WITH_BODY:
            headers["content-length"] = str(size)
        headers["user-agent"] = self._user_agent
        origin = ""
        if proxy is not None and endpoint.scheme == "http":
            origin = f"http://{endpoint.host_header}"
            if proxy.authorization:
                headers["proxy-authorization"] = proxy.authorization
        query = f"?{query}" if query else ""
        return _Form(key, f"{request.method} {origin}", f"{query} HTTP/1.1\r\n{_serialised(headers)}", signature)


def _serialised(headers: dict[str, str]) -> str:
    text = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if text.count("\r") != len(headers) or text.count("\n") != len(headers):
        name = next(name for name, value in headers.items() if "\r" in value or "\n" in value)
        raise ValueError(f"the value of the header {name} holds a line break")
    return text
