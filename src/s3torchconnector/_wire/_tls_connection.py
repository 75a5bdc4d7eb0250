"""A connection with TLS.

Its socket uses Python's timeouts, because OpenSSL does not report those of the kernel.
"""

from __future__ import annotations

import math
import ssl
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from s3torchconnector._wire._connection import SMALL_BODY, Buffer, Connection
from s3torchconnector._wire._timed_socket import AWAITING_RESPONSE

_PIECE = 1024 * 1024  # bytes that OpenSSL is given at a time
_RECORD = 16 * 1024  # bytes of plain text that a record has at most (RFC 8446, 5.1)
_INCOMPLETE_RECORD = 32 * 1024  # bytes that OpenSSL may hold back until the rest of their record comes
_WAKE_UP_BYTES = 256 * 1024  # of a large body, that a thread is woken for; twice as many made loads slower


class Handshake(NamedTuple):
    """What TLS has agreed on. Issuer and end of the certificate (seconds since 1970) are None if it is not verified."""

    version: str
    issuer: str | None
    ends: float | None


class TlsConnection(Connection):
    """A connected ``ssl.SSLSocket``."""

    _kernel_timeouts = False
    _wake_up_bytes = _WAKE_UP_BYTES
    _last_bytes = _WAKE_UP_BYTES + _INCOMPLETE_RECORD
    _not_yet = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
    _sock: ssl.SSLSocket

    def __init__(self, sock: ssl.SSLSocket, read_timeout: float, description: str) -> None:
        super().__init__(sock, read_timeout, description)
        self._buffer = bytearray(_RECORD)  # takes all that OpenSSL has decrypted
        self._has_responded = False

    def _send_body(self, head: bytes, body: Sequence[Buffer]) -> bool:
        is_small = sum(map(len, body)) <= SMALL_BODY
        self._sock.settimeout(0.0)
        try:
            return all(map(self._send_buffer, [b"".join((head, *body))] if is_small else [head, *body]))
        finally:
            self._sock.settimeout(self._current_timeout)

    def _send_buffer(self, buffer: Buffer) -> bool:
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view):
            try:
                done += self._sock.send(view[done : done + _PIECE])
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                if not self._can_send():
                    return False
        return True

    def has_begun(self) -> bool:
        """As without TLS. Before the first response, what is readable may be a session ticket: it is received here."""
        if not self._has_responded:  # tickets come after the handshake; looking costs microseconds
            self._has_responded = self._receive_available() is not None
        return self._has_responded

    def looks_alive(self) -> bool:
        """As without TLS, including bytes that OpenSSL has received or will consume itself."""
        return not self._sock.pending() and (not self._poll.poll(0) or self._receive_available() is None)

    def _fill(self, view: memoryview) -> int:
        """Receive record after record: OpenSSL returns at most one (16 KiB) at a time."""
        receive = self._sock.recv_into
        done = 0
        check_again = -math.inf
        try:
            while done < len(view):
                if time.perf_counter() >= check_again:
                    self._before_waiting()
                    check_again = self._time_is_short_at()
                count = receive(view[done:], _RECORD)  # with a count, Python asks for no length
                if not count:
                    break
                done += count
        except OSError as error:
            # The bytes received so far are good, and the next call meets the same error.
            if not done:
                self._refuse_to_wait(error)
                raise self._translated(error, AWAITING_RESPONSE) from error
        return done

    @property
    def tls_session(self) -> ssl.SSLSession | None:
        return self._sock.session

    def handshake(self) -> Handshake:
        """What was agreed on when the connection was opened."""
        certificate: Any = self._sock.getpeercert() or {}
        issuer = dict(pair for part in certificate.get("issuer", ()) for pair in part)
        name = " ".join(filter(None, [issuer.get("organizationName"), issuer.get("commonName")]))
        ends = certificate.get("notAfter")
        return Handshake(self._sock.version() or "TLS", name or None, ssl.cert_time_to_seconds(ends) if ends else None)
