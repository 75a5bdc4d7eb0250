"""A connection with TLS.

Its socket uses Python's timeouts: those of the kernel are not told through OpenSSL.
"""

from __future__ import annotations

import math
import ssl
import time
from collections.abc import Sequence

from s3torchconnector._wire._connection import SMALL_BODY, Buffer, Connection

_PIECE = 1024 * 1024  # bytes sent between two looks at the clock
_RECORD = 16 * 1024  # bytes of plain text that a record has at most (RFC 8446, 5.1)
_MOST_OF_RECORD = 32 * 1024  # bytes that OpenSSL may have taken, and cannot hand over before the others come
_AT_ONCE = 256 * 1024  # bytes of a large body that are worth being woken for; twice as many made loads slower


class TlsConnection(Connection):
    """A connected ``ssl.SSLSocket``."""

    _kernel_timeouts = False
    _at_once = _AT_ONCE
    _at_the_end = _AT_ONCE + _MOST_OF_RECORD
    _not_yet = (BlockingIOError, ssl.SSLWantReadError)
    _sock: ssl.SSLSocket

    def _send_body(self, head: bytes, body: Sequence[Buffer]) -> None:
        if sum(map(len, body)) <= SMALL_BODY:
            self._sock.sendall(b"".join((head, *body)))
            return
        self._sock.sendall(head)
        for buffer in body:
            view = memoryview(buffer).cast("B")
            for start in range(0, len(view), _PIECE):
                self._before_waiting()
                self._sock.sendall(view[start : start + _PIECE])

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
