"""A socket on which no wait lasts longer than it may.

Sockets stay in blocking mode and take their timeout from the kernel (``SO_RCVTIMEO``), because ``MSG_WAITALL`` then
fills a whole part in one system call: the interpreter lock is taken once a part instead of once a segment.

Signals: the kernel counts a timeout anew when one has interrupted a call that had moved no byte. So a call that may
block is made when a ``poll``, for which Python counts what is left, has said that it will move one.

Deadlines: before it blocks, a socket asks how much time the operation has left, and shortens its timeout to that. A
server that trickles is found out as well: a kernel timeout counts for a whole system call, however many bytes it
brings.
"""

from __future__ import annotations

import math
import select
import socket
import struct
import sys
from threading import get_ident, main_thread

from s3torchconnector._errors import S3ConnectionError, S3TimeoutError
from s3torchconnector._wire._deadline import Deadline

_MAIN_IS_STRUCK = sys.platform == "linux"
AWAITING = "waiting for the answer"
_SENDING = 0.25  # seconds after which it is seen whether a server that takes no more has responded


class TimedSocket:
    """A connected socket with a timeout for silence, and the time that the current operation has."""

    _kernel_timeouts = sys.platform != "win32"

    def __init__(self, sock: socket.socket, timeout: float, description: str) -> None:
        self._sock = sock
        self._timeout = timeout
        self._description = description
        self._scratch: bytearray | None = None  # of a thread that does not wait
        self._deadline: Deadline | None = None
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        if self._kernel_timeouts:
            sock.settimeout(None)
        self._set_timeout(timeout)

    def hurry(self, deadline: Deadline | None) -> None:
        """Have no operation last longer than this, from now on."""
        self._deadline = deadline
        if self._current_timeout != self._timeout:
            self._set_timeout(self._timeout)

    def _set_timeout(self, seconds: float) -> None:
        self._current_timeout = seconds
        if self._kernel_timeouts:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(seconds))
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(min(seconds, _SENDING)))
        else:
            self._sock.settimeout(seconds)

    def _before_waiting(self) -> None:
        """Let the next system call wait no longer than the operation may."""
        if self._deadline is None or self._scratch is not None:
            return
        left = self._deadline.left()
        if left < self._current_timeout:
            if left <= 0:
                raise self._out_of_time()
            self._set_timeout(max(0.001, left))

    def _time_is_short_at(self) -> float:
        """Until when the socket's timeout needs not be shortened, by ``time.perf_counter``."""
        return math.inf if self._deadline is None else self._deadline.until - self._current_timeout

    def _longest_wait(self) -> float:
        """Seconds that may be waited from now on."""
        return self._timeout if self._deadline is None else max(0.0, min(self._timeout, self._deadline.left()))

    def _check_time(self) -> None:
        if self._deadline is not None and self._deadline.left() <= 0:
            raise self._out_of_time()

    def _await_bytes(self) -> None:
        # Linux has the main thread run the handlers of signals, if it takes them at all; other threads need no poll.
        if _MAIN_IS_STRUCK and get_ident() != main_thread().ident:
            return
        if not self._poll.poll(self._current_timeout * 1000):
            raise TimeoutError

    def fileno(self) -> int:
        """The socket's descriptor, to wait on."""
        return self._sock.fileno()

    def abort(self) -> None:
        """Wake whoever is blocked on the socket with an error; callable from any thread."""
        try:
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
        except OSError:  # already closed or disconnected: there is nobody to wake
            return

    def close(self) -> None:
        self._sock.close()

    def silence(self) -> S3ConnectionError:
        """The error of an answer that has not begun for as long as may be waited for it."""
        return self._translated(TimeoutError(), AWAITING)

    def _out_of_time(self) -> S3TimeoutError:
        return S3TimeoutError(f"{self._description} took all the time of the operation")

    def _translated(self, error: OSError, doing: str) -> S3ConnectionError:
        if isinstance(error, (TimeoutError, BlockingIOError)):
            seconds = self._current_timeout
            return S3TimeoutError(f"{self._description} was silent for {seconds:g} s while {doing}")
        return S3ConnectionError(f"the connection to {self._description} broke while {doing}: {error}")


def _timeval(seconds: float) -> bytes:
    return struct.pack("ll", *divmod(math.ceil(seconds * 1e6), 1_000_000))  # 0 would mean: for ever
