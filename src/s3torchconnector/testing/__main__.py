"""``python -m s3torchconnector.testing``: an ``S3Server`` for another terminal, until Ctrl-C or SIGTERM.

Signals do not interrupt anything here: they write to a socket, which is read when the server runs. So the server is
stopped, and its temporary folder removed, whenever a signal comes, and however many.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from s3torchconnector.testing._server import S3Server

__all__ = ["main"]

_ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
# What would go before the variables that are printed, or would be sent to the server with them.
_FOREIGN = (
    "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.folder is not None:
            options.folder.mkdir(parents=True, exist_ok=True)
        with _signals() as received, S3Server(options.folder) as server:
            for bucket in options.bucket:
                server.make_bucket(bucket)
            _tell(_exports(server), sys.stdout)
            _tell(f"serving {server.folder} at {server.endpoint}, until Ctrl-C or SIGTERM")
            return _wait(received, server)
    except (OSError, ModuleNotFoundError, RuntimeError) as error:
        _tell(str(error))
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m s3torchconnector.testing",
        description="Start an S3 server on this machine, print the lines by which a shell lets programs find it, and "
        "run until Ctrl-C or SIGTERM.",
    )
    parser.add_argument("--bucket", metavar="NAME", action="append", default=[], help="create it; may be repeated")
    parser.add_argument(
        "--folder",
        metavar="DIR",
        type=Path,
        help="where the objects are kept, and stay; by default a temporary folder, which is removed at the end",
    )
    return parser


def _exports(server: S3Server) -> str:
    """Lines for a POSIX shell. AWS_ENDPOINT_URL is for programs that do not know AWS_ENDPOINT_URL_S3."""
    variables = {"AWS_ENDPOINT_URL": server.endpoint, **server.env()}
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    return "\n".join([f"unset {' '.join(_FOREIGN)}", *lines])


@contextlib.contextmanager
def _signals() -> Iterator[socket.socket]:
    """A socket with a byte for each signal. One that the parent has ignored (nohup, ``&`` in a script) stays so."""
    ours, pythons = socket.socketpair()
    with ours, pythons:
        pythons.setblocking(False)
        # SIGCHLD: rclone has ended
        wanted = [*(one for one in _ENDING if signal.getsignal(one) is not signal.SIG_IGN), *_child_signal()]
        before = {one: signal.signal(one, lambda *_: None) for one in wanted}
        descriptor = signal.set_wakeup_fd(pythons.fileno())
        try:
            yield ours
        finally:
            signal.set_wakeup_fd(descriptor)
            for one, handler in before.items():
                signal.signal(one, handler)


def _child_signal() -> list[signal.Signals]:
    return [signal.SIGCHLD] if sys.platform != "win32" else []


def _wait(received: socket.socket, server: S3Server) -> int:
    while received.recv(1)[0] not in _ENDING:
        # SIGCHLD comes for a child that is stopped, too.
        if server.pid is not None and os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            _tell(f"the server has ended: {server.log().strip()}")
            return 1
    return 0


def _tell(text: str, stream: TextIO | None = None) -> None:
    stream = stream or sys.stderr
    stream.write(f"{text}\n")
    stream.flush()


if __name__ == "__main__":
    sys.exit(main())
