"""Runs ``s3torch``: as a shell would, in a separate process, or in this one; with output that is no terminal."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from typing import IO

import pytest

from s3torchconnector._cli._app import make_app
from tests.reading.support import wait_until

_TIMEOUT = 60.0  # seconds
# The process gets its own session and terminal, so that Ctrl-C there is a signal.
_AT_TERMINAL = (
    "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); from s3torchconnector._cli import main; main()"
)
_WITH_PEAK = """\
import os, re, sys
from s3torchconnector._cli import main
file = int(sys.argv.pop(1))
try:
    main()
finally:
    os.write(file, re.search(rb"VmHWM:\\s*(\\d+)", open("/proc/self/status", "rb").read())[1])
"""


def s3torch(
    *arguments: str, given: str = "", output: IO[bytes] | int = subprocess.PIPE, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end.

    Args:
        arguments: as on the command line.
        given: what it reads from standard input.
        output: where its standard output goes; by default into the result.
        environment: variables that are set for the command only.
    """
    return subprocess.run(
        [sys.executable, "-m", "s3torchconnector", *arguments],
        input=given,
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        timeout=_TIMEOUT,
        env={**os.environ, **environment},
        check=False,
    )


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end in this process, whose environment it has. Costs no start of Python."""
    output, errors = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors), pytest.raises(SystemExit) as end:
        make_app()(arguments, prog_name="s3torch")
    texts = [stream.buffer.getvalue().decode() for stream in (output, errors)]  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(arguments, end.value.code, *texts)  # type: ignore[arg-type]


def peak_memory(*arguments: str) -> tuple[subprocess.CompletedProcess[bytes], int]:
    """Run the command, which has to succeed, in a separate process. Return also the most memory of it, in bytes."""
    with tempfile.TemporaryFile() as file:
        command = [sys.executable, "-c", _WITH_PEAK, str(file.fileno()), *arguments]
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT, check=True, pass_fds=[file.fileno()])
        file.seek(0)
        return done, int(file.read()) * 1024


class Terminal:
    """A terminal at which the command runs.

    Attributes:
        seen: what has been printed.
        process: the command.
    """

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self.seen = ""
        self.process = process
        self._descriptor = descriptor
        self._until = time.monotonic() + _TIMEOUT

    def expect(self, text: str) -> None:
        """Wait until it was printed."""
        while text not in self.seen:
            assert self._read(), f"{text!r} was not printed, but {self.seen!r}"

    def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until something is so, while the command runs."""
        wait_until(is_so)
        assert self.process.poll() is None, self.seen

    def type(self, text: str) -> None:
        """What a person types; ``\\x03`` is Ctrl-C."""
        os.write(self._descriptor, text.encode())

    def wait(self) -> int:
        """Wait for the end of the command, and return its exit code."""
        while self._read():
            pass
        return self.process.wait(_TIMEOUT)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._descriptor], [], [], max(0.0, self._until - time.monotonic()))
        assert ready, f"the command says no more after {self.seen!r}"
        try:
            data = os.read(self._descriptor, 65536)
        except OSError:  # the process has closed its side
            return False
        self.seen += data.decode()
        return bool(data)


@contextlib.contextmanager
def at_terminal(*arguments: str) -> Iterator[Terminal]:
    """Run the command at a terminal."""
    ours, its = os.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))  # lines, columns
    command = [sys.executable, "-c", _AT_TERMINAL, *arguments]
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its, start_new_session=True) as process:
        os.close(its)
        try:
            yield Terminal(process, ours)
        finally:
            process.kill()
            os.close(ours)
