"""HTTP proxies, chosen by the usual environment variables (HTTP_PROXY, HTTPS_PROXY, NO_PROXY).

The connection to a proxy named by ``https://`` uses TLS, so that nobody on the way to it sees its credentials.
https://urllib3.readthedocs.io/en/stable/advanced-usage.html#http-and-https-proxies
"""

import base64
import contextlib
import socket
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from s3torchconnector._errors import S3ConfigurationError, S3ConnectionError
from s3torchconnector._wire._framing import MAX_HEAD, parse_head

_HTTP_PORTS = {"http": 80, "https": 443}
_SOCKS = ("socks5", "socks5h")
CREDENTIALS_ADVICE = (
    "it requires other credentials. Set them in HTTP_PROXY or HTTPS_PROXY, as http://user:password@host"
)


class Proxy(NamedTuple):
    """A proxy: HTTP's, or one that speaks SOCKS 5.

    Attributes:
        authorization: the value of HTTP's Proxy-Authorization header, if it needs one.
        scheme: ``http``, or ``https`` if it is spoken to by TLS; ``socks5``, or ``socks5h`` if the proxy is to look up
            names.
        login: user and password for SOCKS, if they are given.
    """

    host: str
    port: int
    authorization: str | None = None
    scheme: str = "http"
    login: tuple[str, str] | None = None

    def __repr__(self) -> str:
        return f"Proxy({self.host}:{self.port})"

    @property
    def speaks_http(self) -> bool:
        """Whether it is told where to connect by HTTP, with TLS below or without."""
        return self.scheme in _HTTP_PORTS


def proxy_for(scheme: str, host: str, port: int) -> Proxy | None:
    """The proxy through which to reach an endpoint, or None.

    Raises:
        S3ConfigurationError: the environment names something that is no HTTP or SOCKS 5 proxy.
    """
    proxies = getproxies_environment()
    url = proxies.get(scheme) or proxies.get("all")
    if not url or proxy_bypass(f"{host}:{port}") or _is_in_network(host, proxies.get("no", "")):
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in (*_HTTP_PORTS, *_SOCKS) or not parts.hostname:
        raise S3ConfigurationError(
            f"the {scheme} proxy that the environment names cannot be used (host {parts.hostname!r}): only http://, "
            "https://, socks5:// and socks5h:// proxies are supported. Name another, or exclude the endpoint with "
            "NO_PROXY"
        )
    authorization = None
    if parts.scheme in _SOCKS:
        login = None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))
        return Proxy(parts.hostname, parts.port or 1080, None, parts.scheme, login)
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(user.encode()).decode()
    return Proxy(parts.hostname, parts.port or _HTTP_PORTS[parts.scheme], authorization, parts.scheme)


def _is_in_network(host: str, excluded: str) -> bool:
    """Whether a host is an address in one of the networks (``10.0.0.0/8``) that NO_PROXY names."""
    networks = [entry.strip() for entry in excluded.split(",") if "/" in entry]
    if not networks:
        return False
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return False  # a name: its addresses are not looked up, as other programs do not
    for entry in networks:
        with contextlib.suppress(ValueError):  # it is no network
            if address in ip_network(entry, strict=False):
                return True
    return False


def open_tunnel(sock: socket.socket, proxy: Proxy, host: str, port: int, left: Callable[[], float]) -> None:
    """Ask the proxy at the other end of ``sock`` for a tunnel (RFC 9110, section 9.3.6), within ``left()`` seconds.

    Raises:
        S3ConnectionError: it does not open one.
        S3ConfigurationError: it requires other credentials.
    """
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    response = b""
    try:
        sock.settimeout(left())
        sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        # One byte at a time: what follows the blank line already belongs to TLS.
        while not response.endswith(b"\r\n\r\n") and len(response) < MAX_HEAD:
            sock.settimeout(left())
            byte = sock.recv(1)
            if not byte:
                break
            response += byte
    except OSError as error:
        raise S3ConnectionError(f"the connection to the proxy {proxy.host}:{proxy.port} broke: {error}") from error
    status = parse_head(response[:-4]).status if response.endswith(b"\r\n\r\n") else None
    if status == 407:
        raise S3ConfigurationError(f"the proxy {proxy.host}:{proxy.port} responded with HTTP 407: {CREDENTIALS_ADVICE}")
    if status != 200:
        raise S3ConnectionError(
            f"the proxy {proxy.host}:{proxy.port} does not open a tunnel to {target}: "
            + ("its response is incomplete" if status is None else f"it responded with HTTP {status}")
        )
