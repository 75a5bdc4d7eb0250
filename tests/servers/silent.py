"""A port at which connections are neither accepted nor refused."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """A port of 127.0.0.1 whose queue is full, so that the system ignores further connections."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = int(listener.getsockname()[1])
        while True:
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
            if not select.select([], [sock], [], 0.05)[1]:  # on one machine, it is connected at once or never
                break
        yield port
