"""One connection to the endpoint: a blocking socket. ``TlsConnection`` is the one with TLS.

A thread that serves many connections sets them to non-blocking mode and gives them its scratch memory. Then nothing
waits, and a small response, head and body, is received in one system call.

A connection belongs to one thread at a time. Only ``abort`` may be called from another.
"""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Sequence

from s3torchconnector._activity import activity
from s3torchconnector._errors import S3ConnectionError, S3Exception, S3ProtocolError, S3TimeoutError
from s3torchconnector._wire._framing import MAX_HEAD, ResponseHead, parse_head
from s3torchconnector._wire._polling import POLLIN, POLLOUT, new_poll
from s3torchconnector._wire._timed_socket import AWAITING_RESPONSE, TimedSocket

_HEAD_BUFFER = 8 * 1024
_CAN_WAKE_LATER = sys.platform == "linux"  # where SO_RCVLOWAT does not delay the end of a connection or an error
SMALL_BODY = 64 * 1024  # bytes of request body that are worth copying after the head to save a packet
_MOST_INTERIM = 16  # 1xx heads before a response; S3 sends one at most
_INTERIM = b"HTTP/1.1 1"  # how an interim head begins
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # on Linux
_MANY = hasattr(socket.socket, "sendmsg")  # whether one system call can send several buffers; not on Windows
_MAX_SEGMENTS = 1024  # IOV_MAX on Linux and macOS
_WAKE_UP_BYTES = 512 * 1024  # of a large body, that a thread is woken for; twice as many made loads no faster
_LARGE_BODY = 4 * _WAKE_UP_BYTES

Buffer = bytes | bytearray | memoryview


class NotYet(Exception):
    """In non-blocking mode: the requested bytes have not arrived. Never reaches users."""


class StaleConnection(S3ConnectionError):
    """A connection that was used before broke without a response: most likely the server had closed it while idle."""


class WouldBlock(S3Exception):
    """The length of what follows is unknown, so a thread that may wait must receive it. Never reaches users."""


class Connection(TimedSocket):
    """A connected socket that sends requests and receives response heads and bodies."""

    _wake_up_bytes = _WAKE_UP_BYTES
    _last_bytes = _WAKE_UP_BYTES  # the end of a large body, received like a small body
    _not_yet: tuple[type[OSError], ...] = (BlockingIOError,)  # what a socket in non-blocking mode raises

    def __init__(self, sock: socket.socket, read_timeout: float, description: str) -> None:
        super().__init__(sock, read_timeout, description)
        self._wait_all = socket.MSG_WAITALL if self._kernel_timeouts else 0
        self._flags = 0
        self._buffer = bytearray(_HEAD_BUFFER)
        self._leftover = memoryview(b"")  # received after a head, not yet read
        self.used = False  # whether a whole response came back on it before
        self.idle_since = 0.0

    def set_nonblocking(self, scratch: bytearray | None) -> None:
        """Enter non-blocking mode, in which ``NotYet`` is raised instead of waiting; None: leave it.

        A head and the bytes after it are received into ``scratch``. Read those before the scratch memory is used again.
        """
        if scratch is None and self._leftover:
            self._leftover = memoryview(bytes(self._leftover))  # the scratch memory serves another connection next
        if self._kernel_timeouts:
            self._flags = socket.MSG_DONTWAIT if scratch is not None else 0
        else:
            self._sock.settimeout(0.0 if scratch is not None else self._current_timeout)
        self._scratch = scratch

    @property
    def is_nonblocking(self) -> bool:
        """Whether it is in non-blocking mode."""
        return self._scratch is not None

    @activity("sends the request")
    def send(self, head: bytes, body: Sequence[Buffer] = ()) -> bool:
        """Send a request: its head and the buffers of its body, without joining large ones.

        False: a response began, or the connection ended, before the whole body was sent. The rest is not sent.
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
            sent = self._sock.sendmsg(views[first : first + _MAX_SEGMENTS]) if _MANY else self._sock.send(views[first])
            while first < len(views) and sent >= len(views[first]):
                sent -= len(views[first])
                first += 1
            if sent:
                views[first] = views[first][sent:]
        return True

    def _can_send(self) -> bool:
        """Wait for room to send more of a body; False if a response, or the connection's end, comes first."""
        poll = new_poll()
        poll.register(self._sock, POLLIN | POLLOUT)
        while True:
            ready = poll.poll(self._longest_wait() * 1000)
            if ready and ready[0][1] & POLLIN and self._response_has_begun():
                return False
            self._check_time()
            if not ready:
                raise TimeoutError
            if ready[0][1] & ~POLLIN:
                return True

    def _response_has_begun(self) -> bool:
        """While a body is sent: whether the final response, or the connection's end, is here. Discards interim ones."""
        count = self._receive_available()
        if not count:
            return count is not None
        data = bytes(self._leftover)
        while data.startswith(_INTERIM) and (end := data.find(b"\r\n\r\n")) >= 0:
            data = data[end + 4 :]
        self._leftover = memoryview(data)
        return data[: len(_INTERIM)] != _INTERIM[: len(data)] or len(data) > MAX_HEAD

    def _receive_available(self) -> int | None:
        """Add to the leftover without waiting: the number of bytes; 0 at the end; None if there are none yet."""
        before = bytes(self._leftover)
        try:
            count = self._receive_nonblocking()
        except self._not_yet:
            return None
        except OSError:
            return 0  # the next call meets it as well
        self._leftover = memoryview(before + self._buffer[:count]) if before else memoryview(self._buffer)[:count]
        return count

    def _receive_nonblocking(self) -> int:
        if self._kernel_timeouts:
            return self._sock.recv_into(self._buffer, 0, socket.MSG_DONTWAIT)
        timeout = self._sock.gettimeout()
        self._sock.settimeout(0.0)
        try:
            return self._sock.recv_into(self._buffer, len(self._buffer))  # with a count, Python asks TLS for no length
        finally:
            self._sock.settimeout(timeout)

    @activity("waits for the response")
    def receive_head(self) -> ResponseHead:
        """Receive the next final response head; interim (1xx) responses are skipped."""
        for _ in range(_MOST_INTERIM + 1):
            head = parse_head(self._receive_until_blank_line())
            if head.status >= 200:
                return head
        raise S3ProtocolError(f"{self._description} sent more than {_MOST_INTERIM} interim (1xx) responses")

    def _receive_until_blank_line(self) -> bytes:
        buffer = self._buffer if self._scratch is None else self._scratch
        data = b""
        if self._leftover:
            data, self._leftover = bytes(self._leftover), memoryview(b"")
        else:
            # The usual case: the head and the first bytes of the body arrive at once, and are parsed in place.
            view = memoryview(buffer)
            count = self._receive(view, self._flags)
            end = buffer.find(b"\r\n\r\n", 0, count)
            if end >= 0:
                self._leftover = view[end + 4 : count]
                return bytes(view[:end])
            data = bytes(buffer[:count])
            if not count:
                raise S3ConnectionError(f"{self._description} closed the connection without a response")
        while True:
            end = data.find(b"\r\n\r\n")
            if end >= 0:
                self._leftover = memoryview(data)[end + 4 :]
                return data[:end]
            if not data.startswith(b"HTTP/"[: len(data)]):
                # SSH, SMTP, TLS, ...: do not wait for more, which may take long and will not help.
                parse_head(data)
            if len(data) > MAX_HEAD:
                raise S3ProtocolError(f"{self._description} sent a response head of more than {MAX_HEAD} bytes")
            self._leftover = memoryview(data)  # for the next call, in non-blocking mode
            count = self._receive(memoryview(self._buffer), self._flags)
            self._leftover = memoryview(b"")
            if not count:
                raise S3ConnectionError(f"{self._description} closed the connection in the middle of a response head")
            data += self._buffer[:count]

    @activity("waits for more of the response")
    def readinto(self, view: memoryview, *, fill: bool) -> int:
        """Receive into ``view``; 0 at the connection's end.

        With ``fill``, it is known that enough bytes come to fill ``view``, and one system call may wait for them all.
        """
        if self._leftover:
            count = min(len(view), len(self._leftover))
            view[:count] = self._leftover[:count]
            self._leftover = self._leftover[count:]
            return count
        if self._flags or not fill:
            return self._receive(view, self._flags)
        if _CAN_WAKE_LATER and self._scratch is None and len(view) >= _LARGE_BODY:
            return self._fill_in_large_steps(view)
        return self._fill(view)

    def _fill(self, view: memoryview) -> int:
        """Receive into all of ``view`` if that takes no more system calls."""
        return self._receive(view, self._wait_all)

    def _fill_in_large_steps(self, view: memoryview) -> int:
        """Receive most of ``view``, woken for many bytes and not for each segment: a tenth less processor time.

        The last bytes are left for the next call: nothing may follow them that would wake a thread waiting for more.
        """
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, self._wake_up_bytes)
        try:
            return self._fill(view[: -self._last_bytes])
        except S3TimeoutError:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            if not self._poll.poll(0):
                raise
            return self._receive(view, 0)  # a few bytes did arrive: that is no silence
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
            raise self._translated(error, AWAITING_RESPONSE) from error

    def _refuse_to_wait(self, error: OSError) -> None:
        if self._scratch is not None and isinstance(error, self._not_yet):
            raise NotYet from None

    def has_received(self, count: int | None) -> bool:
        """Whether ``count`` more bytes were received already; None: the end of a chunked body."""
        return len(self._leftover) >= count if count is not None else bytes(self._leftover[-7:]) == b"\r\n0\r\n\r\n"

    def pop_leftover(self, count: int) -> bytes | None:
        """The next ``count`` bytes, if exactly those came after the head; None if fewer or more did."""
        if len(self._leftover) != count:
            return None
        data, self._leftover = bytes(self._leftover), memoryview(b"")
        return data

    @property
    def tls_session(self) -> ssl.SSLSession | None:
        """What lets another connection resume this one's handshake; available after the first response."""
        return None

    @property
    def has_leftover(self) -> bool:
        """Whether bytes came that belong to no response, so that it cannot be used again."""
        return bool(self._leftover)

    def acknowledge_head(self) -> None:
        """Acknowledge the head at once, if its body has not come with it.

        A server that sends both apart, with Nagle's algorithm on (Ceph's gateway, many with default options), sends the
        body after the acknowledgement of the head, which the kernel delays by 40 ms.
        """
        if _QUICKACK is not None and not self._leftover:
            self._sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def has_begun(self) -> bool:
        """Of a connection that is readable: whether a response has begun, or the connection has ended."""
        return True

    def looks_alive(self) -> bool:
        """Whether an idle connection is still open, without stray bytes."""
        return not self._poll.poll(0)
