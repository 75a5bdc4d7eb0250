"""A connection with TLS inside TLS: to an endpoint with TLS, through a proxy that also uses TLS.

``ssl.SSLSocket`` cannot wrap another one, as it reads the descriptor below both. So the inner TLS works in memory, and
its records go through the outer socket.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import cast

from s3torchconnector._wire._connection import Buffer
from s3torchconnector._wire._tls_connection import TlsConnection

_PIECE = 64 * 1024  # bytes that are received at a time


class InnerTls:
    """As much of an ``ssl.SSLSocket`` as ``TlsConnection`` uses, over another one, which it owns once this is made.

    ``recv_into`` has nothing only if nothing is left in memory either, so code that polls the descriptor misses
    nothing.

    Args:
        outer: the connection to the proxy, which leads to ``host`` from here on.
        left: the seconds that the handshake may still take.

    Raises:
        OSError: the handshake failed.
    """

    def __init__(
        self,
        outer: ssl.SSLSocket,
        context: ssl.SSLContext,
        host: str,
        session: ssl.SSLSession | None,
        left: Callable[[], float],
    ) -> None:
        self._outer = outer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._inner = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host, session=session)
        self._records = memoryview(b"")  # that the outer socket has not taken yet
        self._encrypted = 0  # bytes of the buffer that is being sent which they hold
        while True:
            outer.settimeout(left())
            try:
                self._inner.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._receive()
            else:
                self._flush()
                return

    def send(self, data: Buffer) -> int:
        """Send some of ``data``. After an error that says to wait, it must be called with the same data again."""
        if not self._encrypted:
            self._encrypted = self._inner.write(data)
        self._flush()
        count, self._encrypted = self._encrypted, 0
        return count

    def sendall(self, data: Buffer) -> None:
        view = memoryview(data)
        while view:
            view = view[self.send(view) :]

    def recv_into(self, view: memoryview, count: int = 0, flags: int = 0) -> int:
        """Receive into ``view``, at most a record; 0 at the end."""
        while True:
            try:
                return cast(int, self._inner.read(count or len(view), view))
            except ssl.SSLWantReadError:
                self._flush()  # what TLS itself has to say
                self._receive()
            except ssl.SSLEOFError:  # as ``ssl.SSLSocket`` does
                return 0

    def _receive(self) -> None:
        data = self._outer.recv(_PIECE)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _flush(self) -> None:
        while self._records or self._outgoing.pending:
            if not self._records:
                self._records = memoryview(self._outgoing.read())
            self._records = self._records[self._outer.send(self._records) :]

    def pending(self) -> int:
        """How many bytes were received and not handed out, in either TLS."""
        return self._inner.pending() + self._incoming.pending + self._outer.pending()

    @property
    def session(self) -> ssl.SSLSession | None:
        return self._inner.session

    def version(self) -> str | None:
        return self._inner.version()

    def getpeercert(self) -> object:
        return self._inner.getpeercert()

    def fileno(self) -> int:
        return self._outer.fileno()

    def gettimeout(self) -> float | None:
        return self._outer.gettimeout()

    def settimeout(self, seconds: float | None) -> None:
        self._outer.settimeout(seconds)

    def setsockopt(self, level: int, option: int, value: int) -> None:
        self._outer.setsockopt(level, option, value)

    def shutdown(self, how: int) -> None:
        """Shut the TCP connection down, below both."""
        socket.socket.shutdown(self._outer, how)

    def close(self) -> None:
        self._outer.close()


class TlsInTlsConnection(TlsConnection):
    """A connection over an ``InnerTls``."""

    def __init__(self, sock: InnerTls, read_timeout: float, description: str) -> None:
        super().__init__(cast(ssl.SSLSocket, sock), read_timeout, description)

    def _shut_down(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
