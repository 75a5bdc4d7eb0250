"""The base of the servers that run on threads of the test process.

Contract: one thread accepts, one thread serves each connection. Leaving the ``with`` wakes and joins all of them,
closes every socket and raises the first error of a thread, so that a failed expectation on the server's side fails the
test. A connection that the client closes is no error.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading

from typing_extensions import Self


class CloseConnection(Exception):
    """``serve`` raises it to close its connection now."""


class ResetConnection(Exception):
    """``serve`` raises it to reset its connection (RST): the peer's next read fails with ECONNRESET."""


class TcpServer:
    """Listens on a free port of 127.0.0.1; subclasses implement ``serve``.

    Attributes:
        endpoint: such as ``http://127.0.0.1:49152``.
        accepted: how many connections were opened.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.address: tuple[str, int] = self._listener.getsockname()
        self.endpoint = f"{'https' if tls else 'http'}://127.0.0.1:{self.address[1]}"
        self.accepted = 0
        self._lock = threading.Lock()
        self._closing = False
        self._open: set[socket.socket] = set()
        self._stalls: set[threading.Event] = set()
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._accept, name=f"{type(self).__name__} accept")]

    def serve(self, connection: socket.socket, number: int) -> None:
        """Serve one connection, which is closed afterwards; ``number`` counts them from 0."""
        raise NotImplementedError

    def stall(self, release: threading.Event) -> None:
        """Wait for ``release``, or for the end of the server, which sets it."""
        with self._lock:
            self._stalls.add(release)
            if self._closing:
                release.set()
        release.wait()

    def hold(self, connection: socket.socket) -> None:
        """Shut ``connection`` down when the server ends, so that no thread keeps waiting for it."""
        with self._lock:
            self._open.add(connection)
            if self._closing:
                _shut_down(connection)

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, exc_type: object, exc: BaseException | None, tb: object) -> None:
        with self._lock:
            self._closing = True
            for release in self._stalls:
                release.set()
            for connection in self._open:
                _shut_down(connection)
        with contextlib.suppress(ConnectionError):  # wakes accept(), on every platform
            socket.create_connection(self.address).close()
        for thread in self._threads:  # the accepting thread, the first, appends to the list until it ends
            thread.join()
        self._listener.close()
        if self._errors and exc is None:
            raise self._errors[0]

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._closing:
                connection.close()
                return
            self.hold(connection)
            number, self.accepted = self.accepted, self.accepted + 1
            thread = threading.Thread(target=self._run, args=(connection, number), name=type(self).__name__)
            self._threads.append(thread)
            thread.start()

    def _run(self, connection: socket.socket, number: int) -> None:
        raw = connection
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                connection = self._wrap(connection, self._tls)
            self.serve(connection, number)
        except ResetConnection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except (CloseConnection, OSError):  # OSError: the client went away, or refused our certificate
            _shut_down(connection)
        except BaseException as error:
            self._errors.append(error)
        else:
            _shut_down(connection)  # forked children hold copies: closing alone would not tell the client
        finally:
            with self._lock:
                self._open -= {raw, connection}
            connection.close()

    def _wrap(self, connection: socket.socket, tls: ssl.SSLContext) -> socket.socket:
        wrapped = tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        self.hold(wrapped)  # wrapping has taken the descriptor from ``connection``
        try:
            wrapped.do_handshake()
        except BaseException:
            wrapped.close()
            raise
        return wrapped


def _shut_down(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # not connected any more
        socket.socket.shutdown(connection, socket.SHUT_RDWR)  # the TCP connection, also below TLS
