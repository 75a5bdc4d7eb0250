"""A socket on which no wait outlasts its timeout or the deadline of the operation.

Sockets stay in blocking mode and have a kernel timeout (``SO_RCVTIMEO``), so that ``MSG_WAITALL`` fills a whole part in
one system call: the interpreter lock is taken once a part instead of once a segment.

Signals: the kernel restarts a timeout after a signal has interrupted a call that had moved no byte. So before a call
that may block, ``poll``, whose remaining time Python keeps, says that the call will move at least one.

Deadlines: before it blocks, a socket asks how much time the operation has left, and shortens its timeout to that. This
also catches servers that trickle: a kernel timeout applies to the whole system call, however many bytes it brings.
"""

from __future__ import annotations

import math
import socket
import struct
import sys
from threading import get_ident, main_thread

from s3torchconnector._errors import S3ConnectionError, S3TimeoutError
from s3torchconnector._wire._deadline import Deadline
from s3torchconnector._wire._polling import POLLIN, new_poll

_SIGNALS_INTERRUPT_MAIN = sys.platform == "linux"
AWAITING_RESPONSE = "waiting for the response"
_SEND_TIMEOUT = 0.25  # seconds between checks whether a server that takes no more bytes has responded


class TimedSocket:
    """A connected socket, its timeout for silence, and the deadline of the current operation."""

    _kernel_timeouts = hasattr(socket, "MSG_DONTWAIT")  # not on Windows

    def __init__(self, sock: socket.socket, timeout: float, description: str) -> None:
        self._sock = sock
        self._timeout = timeout
        self._description = description
        self._scratch: bytearray | None = None  # memory for non-blocking mode; None in blocking mode
        self._deadline: Deadline | None = None
        self._poll = new_poll()
        self._poll.register(sock, POLLIN)
        if self._kernel_timeouts:
            sock.settimeout(None)
        self._set_timeout(timeout)

    def set_deadline(self, deadline: Deadline | None) -> None:
        """Apply this deadline from now on."""
        self._deadline = deadline
        if self._current_timeout != self._timeout:
            self._set_timeout(self._timeout)

    def _set_timeout(self, seconds: float) -> None:
        self._current_timeout = seconds
        if self._kernel_timeouts:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(seconds))
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(min(seconds, _SEND_TIMEOUT)))
        else:
            self._sock.settimeout(seconds)

    def _before_waiting(self) -> None:
        """Shorten the timeout of the next system call to the time that the operation has left."""
        if self._deadline is None or self._scratch is not None:
            return
        left = self._deadline.left()
        if left < self._current_timeout:
            if left <= 0:
                raise self._time_is_up()
            self._set_timeout(max(0.001, left))

    def _time_is_short_at(self) -> float:
        """Until when the socket's timeout need not be shortened, by ``time.perf_counter``."""
        return math.inf if self._deadline is None else self._deadline.until - self._current_timeout

    def _longest_wait(self) -> float:
        """Seconds that a wait may last from now on."""
        return self._timeout if self._deadline is None else max(0.0, min(self._timeout, self._deadline.left()))

    def _check_time(self) -> None:
        if self._deadline is not None and self._deadline.left() <= 0:
            raise self._time_is_up()

    def _await_bytes(self) -> None:
        # On Linux, signals interrupt the main thread if it does not block them; other threads need no poll.
        if _SIGNALS_INTERRUPT_MAIN and get_ident() != main_thread().ident:
            return
        if not self._poll.poll(self._current_timeout * 1000):
            raise TimeoutError

    def fileno(self) -> int:
        """The socket's descriptor, to wait on."""
        return self._sock.fileno()

    def abort(self) -> None:
        """Wake a thread that is blocked on the socket with an error; callable from any thread."""
        try:
            self._shut_down()
        except OSError:  # already closed or disconnected: no thread is blocked
            return

    def _shut_down(self) -> None:
        socket.socket.shutdown(self._sock, socket.SHUT_RDWR)  # the TCP connection, also below TLS

    def close(self) -> None:
        self._sock.close()

    def silence_error(self) -> S3ConnectionError:
        """The error for a response that has not begun in time."""
        return self._translated(TimeoutError(), AWAITING_RESPONSE)

    def _time_is_up(self) -> S3TimeoutError:
        return S3TimeoutError(f"time was up while waiting for {self._description}")

    def _translated(self, error: OSError, doing: str) -> S3ConnectionError:
        if isinstance(error, (TimeoutError, BlockingIOError)):
            seconds = self._current_timeout
            return S3TimeoutError(f"{self._description} was silent for {seconds:g} s while {doing}")
        return S3ConnectionError(f"the connection to {self._description} broke while {doing}: {error}")


def _timeval(seconds: float) -> bytes:
    return struct.pack("ll", *divmod(math.ceil(seconds * 1e6), 1_000_000))  # 0 would mean no timeout
