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
    Signer,
    canonical_query,
    quote_path,
)
from s3torchconnector._wire._proxy import Proxy
from s3torchconnector._wire._requests import CHECKSUM_MODE, Request

_METHODS_WITH_BODY = ("PUT", "POST")


class HeadBuilder(NamedTuple):
    """What all requests of a client share: who asks, and whether they pay."""

    user_agent: str
    requester_pays: bool = False
    checksums: bool = False  # whether to ask for those of what is downloaded

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
        path = endpoint.path + ("/" + quote_path(request.key) if request.key else "") or "/"
        query = canonical_query(request.query) if request.query else ""
        headers = {"host": endpoint.host_header, **request.headers}
        if self.requester_pays:
            headers["x-amz-request-payer"] = "requester"
        if self.checksums and request.operation == "GetObject":
            headers.update(CHECKSUM_MODE)
        if signer is not None and credentials is not None:
            payload = UNSIGNED_PAYLOAD if request.body else EMPTY_SHA256
            headers.update(signer.sign(credentials, request.method, path, query, headers, payload, timestamp))
        if request.method in _METHODS_WITH_BODY:
            headers["content-length"] = str(sum(map(len, request.body)))
        headers["user-agent"] = self.user_agent
        if proxy is not None and endpoint.scheme == "http":
            path = f"http://{endpoint.host_header}{path}"
            if proxy.authorization:
                headers["proxy-authorization"] = proxy.authorization
        target = f"{path}?{query}" if query else path
        return _serialised(f"{request.method} {target} HTTP/1.1\r\n", headers)


def _serialised(request_line: str, headers: dict[str, str]) -> bytes:
    text = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if text.count("\r") != len(headers) or text.count("\n") != len(headers):
        name = next(name for name, value in headers.items() if "\r" in value or "\n" in value)
        raise ValueError(f"the value of the header {name} holds a line break")
    return f"{request_line}{text}\r\n".encode("latin-1")
