"""Endpoints as values: where the wire connects and for what it signs, and the checked form of a user's URL. Pure.

Everything that can be wrong with an endpoint is found here, once and before any connection, and reported with the name
of the setting it came from. The base path is separate from the authority, so that a server at ``https://host/base`` is
addressed the same way in path style and in virtual-hosted style.
"""

import re
import socket
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import SplitResult, quote, urlsplit

from s3torchconnector._errors import S3ConfigurationError

_DEFAULT_PORTS = {"http": 80, "https": 443}

# Underscores are no part of DNS host names, but container networks resolve them.
_IN_LABELS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-")
_BROKEN_ESCAPE = r"%(?![0-9A-Fa-f]{2})"


class Endpoint(NamedTuple):
    """Where requests for one bucket go, and how they are signed.

    Attributes:
        scheme: ``http`` or ``https``.
        host: the name or address to connect to; IPv6 without brackets.
        port: the port to connect to.
        path: the path before ``/key``, encoded, without a slash at the end: "", "/bucket" or "/base/bucket".
        host_header: the value of the ``Host`` header; a default port is left out.
        region: the signing region; for SigV4A a set of regions, ``*`` for all.
        service: the signing name: ``s3``, ``s3express``, ``s3-object-lambda`` or ``s3-outposts``.
        session_auth: whether to sign with the credentials of CreateSession, as for a directory bucket.
        asymmetric: whether to sign with SigV4A, as for a Multi-Region Access Point.
    """

    scheme: str
    host: str
    port: int
    path: str
    host_header: str
    region: str
    service: str
    session_auth: bool
    asymmetric: bool = False


class EndpointUrl(NamedTuple):
    """A checked endpoint URL; ``path`` is encoded, without a slash at the end."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """``host[:port]`` as it stands in a URL and in the ``Host`` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def is_address(self) -> bool:
        """Whether the host is an IP address."""
        return _is_ip(self.host)

    @property
    def is_path_only(self) -> bool:
        """Whether no bucket can precede the host: an IP address, or a single label such as ``localhost``, whose
        subdomains no name server resolves."""
        return "." not in self.host or self.is_address

    def with_bucket(self, bucket: str) -> "EndpointUrl":
        """Return the path-style address of ``bucket``."""
        return self._replace(path=f"{self.path}/{quote(bucket, safe='')}")

    def endpoint(
        self, region: str, service: str = "s3", session_auth: bool = False, asymmetric: bool = False
    ) -> Endpoint:
        """Return the endpoint at this address."""
        return Endpoint(*self, self.authority, region, service, session_auth, asymmetric)


def parse_endpoint(field: str, text: str) -> EndpointUrl:
    """Parse the endpoint ``text`` of the setting ``field``. Without a scheme it is https.

    Raises:
        S3ConfigurationError: the text is not an http or https URL of a host, with or without port and base path.
    """
    url = text if "://" in text else f"https://{text}"
    if "@" in url.partition("://")[2].partition("/")[0]:
        # The text is not repeated, as it may hold a password.
        raise S3ConfigurationError(f"invalid configuration: {field} must not contain a user name or password")
    try:
        return _checked_url(text, urlsplit(url))
    except ValueError as error:
        raise S3ConfigurationError(
            f"invalid configuration: {field}={text!r} is not an endpoint like 'https://host.example:443': {error}"
        ) from None


def environment_endpoint(environ: Mapping[str, str]) -> EndpointUrl | None:
    """Return the endpoint that the environment names; the one for S3 precedes the one for all services."""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if environ.get(name):
            return parse_endpoint(name, environ[name])
    return None


def _checked_url(text: str, parts: SplitResult) -> EndpointUrl:
    if any(each.isspace() or each < " " or each == "\x7f" for each in text):
        # urlsplit would silently remove some of them.
        raise ValueError("it contains white space or control characters")
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError("the scheme must be http or https")
    if parts.query or parts.fragment:
        raise ValueError("an endpoint has no query and no fragment")
    host = parts.hostname or ""
    if not _is_host(host):
        raise ValueError(f"{host!r} is not a host name or IP address")
    if parts.netloc.endswith(":") or parts.port == 0:
        raise ValueError("the port is empty or 0")
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    return EndpointUrl(parts.scheme, host, port, _base_path(parts.path))


def _base_path(path: str) -> str:
    segments = [segment for segment in path.split("/") if segment]
    if "." in segments or ".." in segments or ("%" in path and re.search(_BROKEN_ESCAPE, path)):
        raise ValueError(f"{path!r} is not a base path")
    return "".join([f"/{quote(segment, safe='%')}" for segment in segments])


def _is_host(host: str) -> bool:
    if ":" in host or host.replace(".", "").isdecimal():
        return _is_ip(host)
    return len(host) <= 253 and all(map(_is_label, host.split(".")))


def _is_label(text: str) -> bool:
    return 0 < len(text) <= 63 and _IN_LABELS.issuperset(text) and "-" not in (text[0], text[-1])


def _is_ip(host: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    except (OSError, UnicodeEncodeError):
        return False
    return True
