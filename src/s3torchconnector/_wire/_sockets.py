"""Connected sockets: to the first address of a name that responds, and never left open in a forked child."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
import time
import weakref
from collections.abc import Sequence
from typing import Any

from s3torchconnector._platform import at_fork
from s3torchconnector._wire._deadline import poll_until
from s3torchconnector._wire._polling import POLLOUT, new_poll

# Seconds without a response after which the next address is tried as well (RFC 8305, section 5).
_NEXT_AFTER = 0.25
_UNDER_WAY = (0, errno.EINPROGRESS, errno.EINTR, getattr(errno, "WSAEWOULDBLOCK", errno.EINPROGRESS))

# All that are open in this process: a fork may come while only the connecting thread knows a socket. Weak references,
# because the owner of a socket closes it.
_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

AddressInfo = tuple[Any, ...]  # as ``socket.getaddrinfo`` returns it


class TlsSocket(ssl.SSLSocket):
    """An ``SSLSocket`` that is closed in forked children, registered before it has a descriptor."""

    def __new__(cls, *args: Any, **kwargs: Any) -> TlsSocket:
        sock = super().__new__(cls, *args, **kwargs)
        _sockets.add(sock)
        return sock


def connect(addresses: Sequence[AddressInfo], end: float) -> socket.socket:
    """A socket in non-blocking mode, connected to one of these addresses by ``end``.

    The next address is tried when one has failed, and also when one has not responded for a while; earlier attempts go
    on. So a dead address costs a moment, a distant one has all the time, and the last of many is still tried in time.

    Raises:
        TimeoutError: none responded by ``end``.
        OSError: all failed; this is the last error.
    """
    pause = min(_NEXT_AFTER, (end - time.perf_counter()) / (len(addresses) + 1))
    attempts = _Attempts()
    try:
        for family, kind, protocol, _, target in addresses:
            attempts.start(family, kind, protocol, target)
            if (sock := attempts.first(time.perf_counter() + pause, or_failure=True)) is not None:
                return sock
        if (sock := attempts.first(end, or_failure=False)) is not None:
            return sock
        raise attempts.error or TimeoutError("timed out")
    finally:
        attempts.close()


class _Attempts:
    """Attempts to connect; one has to succeed.

    Attributes:
        error: the last error, once all attempts have failed; else None.
    """

    def __init__(self) -> None:
        self._error: OSError | None = None
        self._pending: dict[int, socket.socket] = {}
        self._poll = new_poll()

    @property
    def error(self) -> OSError | None:
        return None if self._pending else self._error

    def start(self, family: int, kind: int, protocol: int, target: Any) -> None:
        """Start an attempt with one address."""
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:
            self._error = error
            return
        _sockets.add(sock)
        self._pending[sock.fileno()] = sock
        sock.setblocking(False)
        self._poll.register(sock, POLLOUT)
        code = sock.connect_ex(target)
        if code not in _UNDER_WAY:
            self._fail(sock, code)

    def first(self, end: float, *, or_failure: bool) -> socket.socket | None:
        """The first socket that is connected by ``end``; None when all failed or, with ``or_failure``, when one did."""
        while self._pending and (ready := poll_until(end, self._poll)):
            for descriptor, _ in ready:
                sock = self._pending[descriptor]
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not code:
                    del self._pending[descriptor]
                    return sock
                self._fail(sock, code)
            if or_failure:
                break
        return None

    def _fail(self, sock: socket.socket, code: int) -> None:
        self._error = OSError(code, os.strerror(code))
        self._poll.unregister(sock)
        del self._pending[sock.fileno()]
        sock.close()

    def close(self) -> None:
        """Close the pending attempts."""
        for sock in self._pending.values():
            sock.close()


def _close_parents_sockets() -> None:
    """In a forked child: close the child's copies without telling the server; the parent's connections go on.

    A child that kept a copy would keep the connection open after the parent has closed it.
    """
    for sock in list(_sockets):
        with contextlib.suppress(OSError):  # during a TLS handshake, two objects have the same descriptor
            super(socket.socket, sock).close()  # works also for an object whose constructor has not finished
    _sockets.clear()


at_fork(after_in_child=_close_parents_sockets)
