"""A SOCKS 5 proxy, as ``HTTPS_PROXY=socks5://...`` names one (RFC 1928), with or without a login (RFC 1929)."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from tests.servers.forward_proxy import ForwardProxy
from tests.servers.tcp import CloseConnection


class SocksProxy(ForwardProxy):
    """See the module.

    Args:
        login: user and password that clients must give.
        refuses: whether it connects with nobody.

    Attributes:
        hosts: what clients asked it to connect with: addresses, or names.
    """

    def __init__(self, login: tuple[str, str] | None = None, *, refuses: bool = False) -> None:
        super().__init__()
        self.hosts: list[str] = []
        self._login = login
        self._refuses = refuses

    def serve(self, connection: socket.socket, number: int) -> None:
        _, count = _take(connection, 2)
        methods = _take(connection, count)
        method = 2 if self._login else 0
        connection.sendall(bytes([5, method if method in methods else 255]))
        if method not in methods:
            raise CloseConnection
        if self._login:
            _take(connection, 1)
            given = tuple(_take(connection, _take(connection, 1)[0]).decode() for _ in range(2))
            connection.sendall(bytes([1, given != self._login]))
            if given != self._login:
                raise CloseConnection
        _, _, _, kind = _take(connection, 4)
        if kind == 3:
            host = _take(connection, _take(connection, 1)[0]).decode()
        else:
            host = str(ip_address(_take(connection, 4 if kind == 1 else 16)))
        port = int.from_bytes(_take(connection, 2), "big")
        self.hosts.append(host)
        if self._refuses:
            connection.sendall(b"\5\5\0\1" + bytes(6))
            raise CloseConnection
        self.tunnel(connection, (host, port), b"\5\0\0\1" + bytes(6))


def _take(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise CloseConnection
        data += piece
    return data
