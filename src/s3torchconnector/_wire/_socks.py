"""SOCKS 5: a proxy that opens a connection for us, and is not noticed on it (RFC 1928, RFC 1929)."""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import IPv4Address, ip_address

from s3torchconnector._errors import S3ConfigurationError, S3ConnectionError
from s3torchconnector._wire._proxy import CREDENTIALS_ADVICE, Proxy

_NO_LOGIN, _PASSWORD = 0, 2
_REASONS = {
    1: "a failure of its own", 2: "its rules do not allow it", 3: "the network is unreachable",
    4: "the host is unreachable", 5: "the connection was refused", 6: "it took too long",
}  # fmt: skip


def open_socks(sock: socket.socket, proxy: Proxy, host: str, port: int, left: Callable[[], float]) -> None:
    """Have the proxy at the other end of ``sock`` connect it with a host, within ``left()`` seconds.

    Raises:
        S3ConnectionError: it does not.
        S3ConfigurationError: it requires other credentials.
    """
    name = f"the proxy {proxy.host}:{proxy.port}"
    try:
        _log_in(sock, proxy, name, left)
        _send(sock, b"\5\1\0" + _address(host, port, resolve=proxy.scheme == "socks5") + port.to_bytes(2, "big"), left)
        _, code, _, kind = _receive(sock, 4, left)
        if code == 0:
            _receive(sock, {1: 4, 4: 16}.get(kind) or _receive(sock, 1, left)[0], left)
            _receive(sock, 2, left)
            return
    except OSError as error:
        if isinstance(error, S3ConnectionError):
            raise
        raise S3ConnectionError(f"the connection to {name} broke: {error}") from error
    raise S3ConnectionError(f"{name} does not connect to {host}:{port}: {_REASONS.get(code, f'error {code}')}")


def _log_in(sock: socket.socket, proxy: Proxy, name: str, left: Callable[[], float]) -> None:
    methods = [_NO_LOGIN] if proxy.login is None else [_NO_LOGIN, _PASSWORD]
    _send(sock, bytes([5, len(methods), *methods]), left)
    version, method = _receive(sock, 2, left)
    if version != 5:
        raise S3ConnectionError(f"{name} does not speak SOCKS 5")
    if method == _PASSWORD and proxy.login is not None:
        user, password = (text.encode() for text in proxy.login)
        if max(len(user), len(password)) > 255:
            raise S3ConfigurationError(f"the user and the password for {name} may have 255 bytes each")
        _send(sock, bytes([1, len(user)]) + user + bytes([len(password)]) + password, left)
        if _receive(sock, 2, left)[1] == 0:
            return
    if method != _NO_LOGIN:
        raise S3ConfigurationError(f"{name} refuses the connection: {CREDENTIALS_ADVICE}")


def _address(host: str, port: int, *, resolve: bool) -> bytes:
    """A host as SOCKS names it: by its address, or by its name for the proxy to look up."""
    try:
        address = ip_address(host)
    except ValueError:
        if not resolve:
            name = host.encode("idna")
            return bytes([3, len(name)]) + name
        found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
        address = ip_address(found[0][4][0])
    return bytes([1 if isinstance(address, IPv4Address) else 4]) + address.packed


def _send(sock: socket.socket, data: bytes, left: Callable[[], float]) -> None:
    sock.settimeout(left())
    sock.sendall(data)


def _receive(sock: socket.socket, count: int, left: Callable[[], float]) -> bytes:
    data = b""
    while len(data) < count:
        sock.settimeout(left())
        piece = sock.recv(count - len(data))
        if not piece:
            raise ConnectionAbortedError("it was closed")
        data += piece
    return data
