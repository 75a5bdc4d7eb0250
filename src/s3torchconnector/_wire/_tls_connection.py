"""A connection with TLS.

Its socket uses Python's timeouts: those of the kernel are not told through OpenSSL.
"""

from __future__ import annotations

import math
import ssl
import time
from collections.abc import Sequence

from s3torchconnector._wire._connection import SMALL_BODY, Buffer, Connection

_PIECE = 1024 * 1024  # bytes that OpenSSL is given at a time
_RECORD = 16 * 1024  # bytes of plain text that a record has at most (RFC 8446, 5.1)
_MOST_OF_RECORD = 32 * 1024  # bytes that OpenSSL may have taken, and cannot hand over before the others come
_AT_ONCE = 256 * 1024  # bytes of a large body that are worth being woken for; twice as many made loads slower


class TlsConnection(Connection):
    """A connected ``ssl.SSLSocket``."""

    _kernel_timeouts = False
    _at_once = _AT_ONCE
    _at_the_end = _AT_ONCE + _MOST_OF_RECORD
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

    def _receive_at_once(self) -> int:
        timeout = self._sock.gettimeout()
        self._sock.settimeout(0.0)
        try:
            return self._sock.recv_into(self._buffer, _RECORD)  # told how many, Python does not look for itself
        finally:
            self._sock.settimeout(timeout)

    def has_begun(self) -> bool:
        """As that of others. Before the first response, what is readable may be a session ticket, which is taken in."""
        if not self._has_responded:  # servers send tickets when they have shaken hands; to look costs microseconds
            self._has_responded = self._receive_what_is_here() is not None
        return self._has_responded

    def looks_alive(self) -> bool:
        """As that of others, whatever is in OpenSSL's hands or addressed to it."""
        return not self._sock.pending() and (not self._poll.poll(0) or self._receive_what_is_here() is None)

    def _fill(self, view: memoryview) -> int:
        """Receive record after record: OpenSSL hands over one (16 KiB) at a time, whatever it is asked for."""
        receive = self._sock.recv_into
        done = 0
        look_again = -math.inf
        try:
            while done < len(view):
                if time.perf_counter() >= look_again:
                    self._before_waiting()
                    look_again = self._time_is_short_at()
                count = receive(view[done:], _RECORD)  # told how many, Python does not look for itself
                if not count:
                    break
                done += count
        except OSError as error:
            # What came is good, and the next call meets the same error.
            if not done:
                self._refuse_to_wait(error)
                raise self._translated(error, "waiting for the answer") from error
        return done

    @property
    def tls_session(self) -> ssl.SSLSession | None:
        return self._sock.session
