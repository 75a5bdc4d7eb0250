"""The head of a request as bytes: addressed, signed and serialised. No I/O.

Every header is signed, except those that proxies may change. The payload is not hashed (``UNSIGNED-PAYLOAD``): SHA-256
of every uploaded byte would cost more than sending it, and the checksum headers ensure integrity.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from s3torchconnector._config import S3ClientConfig
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
from s3torchconnector._wire._account_headers import AccountHeaders
from s3torchconnector._wire._operations import CHECKSUM_MODE, UNASKED, Request
from s3torchconnector._wire._proxy import Proxy

if TYPE_CHECKING:
    from s3torchconnector._identity import AsymmetricSignature, AsymmetricSigner

_METHODS_WITH_BODY = ("PUT", "POST")
_METHODS_OF_READING = ("GET", "HEAD")
_DECOMPRESSING = "storage.googleapis.com"  # sends objects with Content-Encoding: gzip decompressed, if it may
_ANY_RANGE = "bytes=\0"  # stands for the range in a form of requests that differ in their ranges, too


# What a form depends on: the timestamp, the endpoint, the proxy, the signer and its credentials, the size of the body,
# other parts of the request, and last its headers.
_Key = tuple[
    str,
    Endpoint,
    "Proxy | None",
    "Signer | AsymmetricSigner | None",
    "Credentials | None",
    int,
    tuple[object, ...],
    Mapping[str, str],
]


class _Form(NamedTuple):
    """A head without its path: requests of the same second often differ in nothing else."""

    key: _Key
    before_path: str
    after_path: str  # up to the signature
    signature: "Signature | AsymmetricSignature | None"

    def with_range(self, value: str) -> "_Form":
        """This form of any range, for one range."""
        signature = self.signature
        if isinstance(signature, Signature):
            signature = signature._replace(after_path=signature.after_path.replace(_ANY_RANGE, value))
        return _Form(self.key, self.before_path, self.after_path.replace(_ANY_RANGE, value), signature)

    def __repr__(self) -> str:
        return "_Form(...)"  # it may hold a session token, or a key of the customer's


class HeadBuilder:
    """Builds the heads of a client's requests. Thread-safe: the form used last is replaced by one assignment.

    Args:
        user_agent: the value of the ``user-agent`` header.
        account: what the client's configuration adds.
        checksums: whether to ask for the checksums of downloaded objects.
    """

    def __init__(self, user_agent: str, account: AccountHeaders | None = None, checksums: bool = False) -> None:
        self._user_agent = user_agent
        self.account = account or AccountHeaders(S3ClientConfig())
        self._checksums = checksums
        self._form: _Form | None = None
        self._form_of_ranges: _Form | None = None
        self._unasked: set[str] = set()
        self._stored_gzip: set[str] = set()

    def may_ask(self, request: Request) -> bool:
        """Whether the head of ``request`` asks for the object's checksum, if the bucket takes that."""
        asks = self._checksums and request.operation == "GetObject"
        return asks and request.headers.get(CHECKSUM_MODE) != UNASKED

    def stop_asking(self, bucket: str) -> None:
        """Ask for no checksum of the bucket's objects any more."""
        self._unasked.add(bucket)
        self._form = self._form_of_ranges = None

    def accept_gzip(self, bucket: str) -> bool:
        """Have the bucket's compressed objects sent as they are stored, from now on: True."""
        self._stored_gzip.add(bucket)
        self._form = self._form_of_ranges = None
        return True

    def build(
        self,
        request: Request,
        endpoint: Endpoint,
        signer: "Signer | AsymmetricSigner | None",
        credentials: Credentials | None,
        timestamp: str,
        proxy: Proxy | None = None,
    ) -> bytes:
        """The head of ``request`` for ``endpoint``, signed if there are credentials.

        Raises:
            ValueError: a header value holds a line break.
            S3ConfigurationError: a key of the customer cannot be had, or must not be sent there.
        """
        size = sum(map(len, request.body)) if request.body else 0
        # Everything that ``_new_form`` depends on.
        key = (
            timestamp,
            endpoint,
            proxy,
            signer,
            credentials,
            size,
            (not request.body, request.operation, request.method, request.query, request.source_key),
            request.headers,
        )
        form = self._form
        if form is None or form.key != key:
            form = self._other_form(key, request)
        path = endpoint.path + ("/" + quote_path(request.key) if request.key else "") or "/"
        signed = f"authorization: {form.signature.authorization(path)}\r\n" if form.signature else ""
        return f"{form.before_path}{path}{form.after_path}{signed}\r\n".encode("latin-1")

    def _other_form(self, key: _Key, request: Request) -> _Form:
        """The form of a request that differs from the one before: only in its range, or in more."""
        range_ = request.headers.get("range", "")
        # Samples of archives differ in their ranges. (An asymmetric signature is made of all headers each time.)
        _, _, _, signer, *_ = key
        if _is_simple(range_) and isinstance(signer, (Signer, type(None))):
            any_range = request._replace(headers={**request.headers, "range": _ANY_RANGE})
            key_of_ranges: _Key = (*key[:-1], any_range.headers)
            form = self._form_of_ranges
            if form is not None and form.key == key_of_ranges:
                return form.with_range(range_)
            self._form_of_ranges = self._new_form(key_of_ranges, any_range)
        self._form = form = self._new_form(key, request)
        return form

    def _new_form(self, key: _Key, request: Request) -> _Form:
        timestamp, endpoint, proxy, signer, credentials, size, *_ = key
        query = canonical_query(request.query)
        headers = {"host": endpoint.host_header, **request.headers, **self.account.of(request, endpoint)}
        if self.may_ask(request) and request.bucket not in self._unasked:
            headers[CHECKSUM_MODE] = "ENABLED"
        elif headers.get(CHECKSUM_MODE) == UNASKED:
            del headers[CHECKSUM_MODE]
        signature = None
        if signer is not None and credentials is not None:
            payload = UNSIGNED_PAYLOAD if request.body else EMPTY_SHA256
            signature = signer.prepare(credentials, request.method, query, headers, payload, timestamp)
            headers.update(signature.headers)
        if request.method in _METHODS_WITH_BODY:
            headers["content-length"] = str(size)
        headers["user-agent"] = self._user_agent
        if request.method in _METHODS_OF_READING and (
            request.bucket in self._stored_gzip or endpoint.host.endswith(_DECOMPRESSING)
        ):
            headers["accept-encoding"] = "gzip"  # not signed, since Google's front end changes it
        origin = ""
        if proxy is not None and proxy.speaks_http and endpoint.scheme == "http":
            origin = f"http://{endpoint.host_header}"
            if proxy.authorization:
                headers["proxy-authorization"] = proxy.authorization
        query = f"?{query}" if query else ""
        return _Form(key, f"{request.method} {origin}", f"{query} HTTP/1.1\r\n{_serialised(headers)}", signature)


def _serialised(headers: dict[str, str]) -> str:
    text = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if text.count("\r") != len(headers) or text.count("\n") != len(headers):
        name = next(name for name, value in headers.items() if "\r" in value or "\n" in value)
        raise ValueError(f"the value of the header {name} contains a line break")
    return text


def _is_simple(range_: str) -> bool:
    """Whether it is one range: ``bytes=`` and a number, a hyphen and a number, one of which may be absent."""
    first, hyphen, last = range_.removeprefix("bytes=").partition("-")
    return range_.startswith("bytes=") and bool(hyphen) and not (first + last).strip("0123456789")
