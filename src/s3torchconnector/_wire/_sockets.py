"""Connected sockets: to whichever address of a name responds first, and never left open in a forked child."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import ssl
import time
import weakref
from collections.abc import Sequence
from typing import Any

from s3torchconnector._wire._deadline import poll_until

# Seconds without a response after which the next address is tried as well (RFC 8305, section 5).
_NEXT_AFTER = 0.25
_UNDER_WAY = (0, errno.EINPROGRESS, errno.EINTR)

# All that are open in this process. Weak, since who has one closes it; a fork may come while one is being connected,
# when nobody but the connecting thread has it.
_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

AddressInfo = tuple[Any, ...]  # as ``socket.getaddrinfo`` returns it


class TlsSocket(ssl.SSLSocket):
    """An ``SSLSocket`` that is closed in forked children, from before it has a descriptor."""

    def __new__(cls, *args: Any, **kwargs: Any) -> TlsSocket:
        sock = super().__new__(cls, *args, **kwargs)
        _sockets.add(sock)
        return sock


def connect(addresses: Sequence[AddressInfo], end: float) -> socket.socket:
    """A socket that is connected to one of these addresses by ``end``, in non-blocking mode.

    The next address is tried when one has failed, and also when one has not responded for a while; no attempt is given
    up before all have failed. So a dead address costs a moment, a distant one has all of the time, and however many
    there are, the last one is tried in time.

    Raises:
        TimeoutError: none responded by ``end``.
        OSError: all failed, the last one for this reason.
    """
    pause = min(_NEXT_AFTER, (end - time.perf_counter()) / (len(addresses) + 1))
    attempts = _Attempts()
    try:
        for family, kind, protocol, _, target in addresses:
            attempts.begin(family, kind, protocol, target)
            if (sock := attempts.first(time.perf_counter() + pause, or_failure=True)) is not None:
                return sock
        if (sock := attempts.first(end, or_failure=False)) is not None:
            return sock
        raise attempts.error or TimeoutError("timed out")
    finally:
        attempts.close()


class _Attempts:
    """Connections that are being opened, of which one is wanted.

    Attributes:
        error: of the last that failed, once all have; else None.
    """

    def __init__(self) -> None:
        self._error: OSError | None = None
        self._pending: dict[int, socket.socket] = {}
        self._poll = select.poll()

    @property
    def error(self) -> OSError | None:
        return None if self._pending else self._error

    def begin(self, family: int, kind: int, protocol: int, target: Any) -> None:
        """Try one address."""
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:
            self._error = error
            return
        _sockets.add(sock)
        self._pending[sock.fileno()] = sock
        sock.setblocking(False)
        self._poll.register(sock, select.POLLOUT)
        code = sock.connect_ex(target)
        if code not in _UNDER_WAY:
            self._fail(sock, code)

    def first(self, end: float, *, or_failure: bool) -> socket.socket | None:
        """The first that is connected by ``end``; None also as soon as one fails, with ``or_failure``, or all have."""
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
        """Give up what is pending."""
        for sock in self._pending.values():
            sock.close()


def _close_parents_sockets() -> None:
    """In a forked child: close our copies, without a word to the other end; the parent's stay as they are.

    A child that kept one would keep the connection open after the parent has closed it.
    """
    for sock in list(_sockets):
        with contextlib.suppress(OSError):  # while TLS is set up, two objects have the same descriptor
            super(socket.socket, sock).close()  # which needs nothing of an object that was being made
    _sockets.clear()


os.register_at_fork(after_in_child=_close_parents_sockets)
