"""One connection to the endpoint: a blocking socket. ``TlsConnection`` is the one with TLS.

A thread that looks after many connections lends each its scratch memory (``lend``): then nothing is waited for, and a
small answer, head and body, is received in one system call.

A connection belongs to one thread at a time. Only ``abort`` may be called from another.
"""

from __future__ import annotations

import select
import socket
import ssl
import sys
from collections.abc import Sequence

from s3torchconnector._errors import S3ConnectionError, S3ProtocolError, S3TimeoutError
from s3torchconnector._wire._framing import MAX_HEAD, ResponseHead, parse_head
from s3torchconnector._wire._timed_socket import AWAITING, TimedSocket

_HEAD_BUFFER = 8 * 1024
_WAKES_LATER = sys.platform == "linux"  # wakes for an end or an error at once all the same
SMALL_BODY = 64 * 1024  # bytes of request body that are worth copying behind the head to save a packet
_MOST_INTERIM = 16  # 1xx heads before an answer; S3 sends one at most
_INTERIM = b"HTTP/1.1 1"  # how an interim head begins
_MAX_SEGMENTS = 1024  # IOV_MAX on Linux and macOS
_AT_ONCE = 512 * 1024  # bytes of a large body that are worth being woken for; twice as many made loads no faster
_LARGE_BODY = 4 * _AT_ONCE

Buffer = bytes | bytearray | memoryview


class NotYet(Exception):
    """What is asked for has not arrived, and the thread has better things to do than to wait. Never reaches users."""


class Connection(TimedSocket):
    """A connected socket that sends requests and receives response heads and bodies."""

    _at_once = _AT_ONCE
    _at_the_end = _AT_ONCE  # bytes of a large body that are received as those of a small one
    _not_yet: tuple[type[OSError], ...] = (BlockingIOError,)  # what a socket that must not wait raises

    def __init__(self, sock: socket.socket, read_timeout: float, description: str) -> None:
        super().__init__(sock, read_timeout, description)
        self._wait_all = socket.MSG_WAITALL if self._kernel_timeouts else 0
        self._flags = 0
        self._buffer = bytearray(_HEAD_BUFFER)
        self._leftover = memoryview(b"")  # received behind a head, not yet handed over
        self.used = False  # whether a whole response came back on it before
        self.idle_since = 0.0

    def lend(self, scratch: bytearray | None) -> None:
        """Wait for nothing from now on, and raise ``NotYet`` instead; None: wait again.

        A head is received into ``scratch`` with what follows it, which must be taken before the scratch is used again.
        """
        if scratch is None and self._leftover:
            self._leftover = memoryview(bytes(self._leftover))  # the scratch serves another connection next
        if self._kernel_timeouts:
            self._flags = socket.MSG_DONTWAIT if scratch is not None else 0
        else:
            self._sock.settimeout(0.0 if scratch is not None else self._current_timeout)
        self._scratch = scratch

    @property
    def is_lent(self) -> bool:
        """Whether its thread waits for nothing."""
        return self._scratch is not None

    def send(self, head: bytes, body: Sequence[Buffer] = ()) -> bool:
        """Send a request: its head and the buffers of its body, without joining large ones.

        False: a response began, or the connection ended, before all of the body was sent. The rest was not.
        """
        self._before_waiting()
        try:
            if body:
                return self._send_body(head, body)
            self._sock.sendall(head)
        except OSError as error:
            raise self._translated(error, "sending the request") from error
        return True

    def _send_body(self, head: bytes, body: Sequence[Buffer]) -> bool:
        views = [memoryview(buffer).cast("B") for buffer in [head, *body] if len(buffer)]
        first = 0
        while first < len(views):
            if not self._can_send():
                return False
            sent = self._sock.sendmsg(views[first : first + _MAX_SEGMENTS])
            while first < len(views) and sent >= len(views[first]):
                sent -= len(views[first])
                first += 1
            if sent:
                views[first] = views[first][sent:]
        return True

    def _can_send(self) -> bool:
        """Wait for room to send more of a body; False if a response, or the connection's end, comes before there is."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN | select.POLLOUT)
        while True:
            ready = poll.poll(self._longest_wait() * 1000)
            if ready and ready[0][1] & select.POLLIN and self._response_has_begun():
                return False
            self._check_time()
            if not ready:
                raise TimeoutError
            if ready[0][1] & ~select.POLLIN:
                return True

    def _response_has_begun(self) -> bool:
        """While a body is sent: whether the final response, or the connection's end, is here. Drops interim ones."""
        count = self._receive_what_is_here()
        if not count:
            return count is not None
        data = bytes(self._leftover)
        while data.startswith(_INTERIM) and (end := data.find(b"\r\n\r\n")) >= 0:
            data = data[end + 4 :]
        self._leftover = memoryview(data)
        return data[: len(_INTERIM)] != _INTERIM[: len(data)] or len(data) > MAX_HEAD

    def _receive_what_is_here(self) -> int | None:
        """Add to what is left over, without waiting: the number of bytes; 0 at the end; None if there are none yet."""
        before = bytes(self._leftover)
        try:
            count = self._receive_at_once()
        except self._not_yet:
            return None
        except OSError:
            return 0  # whoever receives next meets it as well
        self._leftover = memoryview(before + self._buffer[:count]) if before else memoryview(self._buffer)[:count]
        return count

    def _receive_at_once(self) -> int:
        return self._sock.recv_into(self._buffer, 0, socket.MSG_DONTWAIT)

    def receive_head(self) -> ResponseHead:
        """Receive the next final response head; interim (1xx) responses are passed over."""
        for _ in range(_MOST_INTERIM + 1):
            head = parse_head(self._receive_until_blank_line())
            if head.status >= 200:
                return head
        raise S3ProtocolError(f"{self._description} sent more than {_MOST_INTERIM} interim (1xx) answers")

    def _receive_until_blank_line(self) -> bytes:
        buffer = self._buffer if self._scratch is None else self._scratch
        data = b""
        if self._leftover:
            data, self._leftover = bytes(self._leftover), memoryview(b"")
        else:
            # The usual case: the head, and the first bytes of the body, in one piece and in place.
            count = self._receive(memoryview(buffer), self._flags)
            end = buffer.find(b"\r\n\r\n", 0, count)
            if end >= 0:
                self._leftover = memoryview(buffer)[end + 4 : count]
                return bytes(memoryview(buffer)[:end])
            data = bytes(buffer[:count])
            if not count:
                raise S3ConnectionError(f"{self._description} closed the connection without an answer")
        while True:
            end = data.find(b"\r\n\r\n")
            if end >= 0:
                self._leftover = memoryview(data)[end + 4 :]
                return data[:end]
            if not data.startswith(b"HTTP/"[: len(data)]):
                # SSH, SMTP, TLS, ...: what follows will not help, and may be long in coming.
                parse_head(data)
            if len(data) > MAX_HEAD:
                raise S3ProtocolError(f"{self._description} sent a response head of more than {MAX_HEAD} bytes")
            self._leftover = memoryview(data)  # for the next call, where this one must not wait
            count = self._receive(memoryview(self._buffer), self._flags)
            self._leftover = memoryview(b"")
            if not count:
                raise S3ConnectionError(f"{self._description} closed the connection in the middle of a response head")
            data += self._buffer[:count]

    def readinto(self, view: memoryview, *, fill: bool) -> int:
        """Receive into ``view``; 0 at the connection's end.

        With ``fill``, all of ``view`` is known to come, and may be waited for in one system call.
        """
        if self._leftover:
            count = min(len(view), len(self._leftover))
            view[:count] = self._leftover[:count]
            self._leftover = self._leftover[count:]
            return count
        if self._flags or not fill:
            return self._receive(view, self._flags)
        if _WAKES_LATER and self._scratch is None and len(view) >= _LARGE_BODY:
            return self._fill_seldom_woken(view)
        return self._fill(view)

    def _fill(self, view: memoryview) -> int:
        """Receive, and wait for all of ``view`` if that costs no more."""
        return self._receive(view, self._wait_all)

    def _fill_seldom_woken(self, view: memoryview) -> int:
        """Receive most of ``view``, woken for many bytes and not for each segment: a tenth less processor time.

        The last ones are left for the next call: behind them there may be nothing that would wake anybody.
        """
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, self._at_once)
        try:
            return self._fill(view[: -self._at_the_end])
        except S3TimeoutError:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            if not self._poll.poll(0):
                raise
            return self._receive(view, 0)  # what is here: too few to wake for are no silence
        finally:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)

    def _receive(self, view: memoryview, flags: int) -> int:
        self._before_waiting()
        try:
            if self._kernel_timeouts and self._scratch is None:
                self._await_bytes()
            return self._sock.recv_into(view, 0, flags)
        except OSError as error:
            self._refuse_to_wait(error)
            raise self._translated(error, AWAITING) from error

    def _refuse_to_wait(self, error: OSError) -> None:
        if self._scratch is not None and isinstance(error, self._not_yet):
            raise NotYet from None

    def has_here(self, count: int | None) -> bool:
        """Whether ``count`` bytes are here already; None: a chunked body, to its end."""
        return len(self._leftover) >= count if count is not None else bytes(self._leftover[-7:]) == b"\r\n0\r\n\r\n"

    def take_leftover(self, count: int) -> bytes | None:
        """The next ``count`` bytes if that is exactly what came behind the head; None if it is less or more."""
        if len(self._leftover) != count:
            return None
        data, self._leftover = bytes(self._leftover), memoryview(b"")
        return data

    @property
    def tls_session(self) -> ssl.SSLSession | None:
        """What lets another connection resume this one's handshake; it comes after the first answer."""
        return None

    @property
    def has_leftover(self) -> bool:
        """Whether bytes came that no response accounts for, so that it cannot be used again."""
        return bool(self._leftover)

    def has_begun(self) -> bool:
        """Of a connection that is readable: whether a response has begun, or the connection has ended."""
        return True

    def looks_alive(self) -> bool:
        """Whether an idle connection is still open, and no bytes came that no response accounts for."""
        return not self._poll.poll(0)
