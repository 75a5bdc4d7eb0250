"""Programs that need not import PyTorch, which takes seconds: one interpreter has, and each program is a fork of it.

Unlike a child of ``multiprocessing``, a program is the ``__main__`` of its interpreter and ends as any program does:
its threads are waited for, its finalisers run. The package is not imported before a program begins. A program that
needs options of the interpreter (``-X``) needs one of its own.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import faulthandler
import gc
import importlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

_ROOT = Path(__file__).parents[2]


class WarmProgram:
    """A program that has begun, as ``subprocess.Popen`` has it, in a session of its own."""

    def __init__(self, arguments: Sequence[str], stdin: int, stdout: int, stderr: int, status: int) -> None:
        self.args = arguments
        self.stdin: IO[str] = os.fdopen(stdin, "w")
        self.stdout: IO[str] = os.fdopen(stdout)
        self.stderr: IO[str] = os.fdopen(stderr)
        self._status: IO[str] = os.fdopen(status)
        self.pid = int(self._status.readline())
        self.returncode: int | None = None

    def send_signal(self, number: int) -> None:
        """Send it, unless the program has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it and its children, which would keep the pipes open."""
        for kill in (os.killpg, os.kill):  # it leads no group yet when it has just begun
            with contextlib.suppress(ProcessLookupError):
                kill(self.pid, signal.SIGKILL)

    def communicate(self, timeout: float = 60.0) -> tuple[str, str]:
        """Wait for its end. Return the rest of what it says, the first time.

        Raises:
            subprocess.TimeoutExpired: it did not end in time, and has been killed.
        """
        if self.returncode is not None:
            return "", ""
        with contextlib.suppress(BrokenPipeError):
            self.stdin.close()
        files = (self.stdout, self.stderr, self._status)
        with concurrent.futures.ThreadPoolExecutor(len(files)) as pool:
            reads = [pool.submit(file.read) for file in files]
            try:
                _, waiting = concurrent.futures.wait(reads, timeout)
            finally:
                if not all(read.done() for read in reads):  # the end of the pool waits for them, also in a stopped test
                    self.kill()
        output, errors, status = (read.result() for read in reads)
        for file in files:
            file.close()
        self.returncode = int(status)
        if waiting:
            raise subprocess.TimeoutExpired(self.args, timeout, output, errors)
        return output, errors


class WarmPython:
    """The interpreter; a context manager."""

    def __enter__(self) -> WarmPython:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            number = theirs.fileno()
            command = [sys.executable, "-m", "tests.servers.warm", f"{number}"]
            self._process = subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.DEVNULL, pass_fds=[number])
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._channel.close()
        assert self._process.wait(60) == 0

    def start(self, *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> WarmProgram:
        """Begin a program.

        Args:
            arguments: as after ``python``: ``-W`` and a filter of all warnings, then ``-c`` and a text, ``-m`` and the
                name of a module, or a path, and then what the program is called with.
        """
        request = {"arguments": arguments, "env": {**(env or os.environ)}, "cwd": str(cwd or Path.cwd())}
        with tempfile.TemporaryFile("w+") as file:
            json.dump(request, file)
            file.flush()
            (in_theirs, in_ours), pipes = os.pipe(), [os.pipe() for _ in range(3)]
            theirs = [in_theirs, *(writer for _, writer in pipes)]
            socket.send_fds(self._channel, [b"x"], [file.fileno(), *theirs])
        for descriptor in theirs:
            os.close(descriptor)
        return WarmProgram(arguments, in_ours, *(reader for reader, _ in pipes))

    def run(
        self, *arguments: str, seconds: float = 60.0, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; see ``start``."""
        program = self.start(*arguments, env=env, cwd=cwd)
        output, errors = program.communicate(seconds)
        assert program.returncode is not None
        return subprocess.CompletedProcess(arguments, program.returncode, output, errors)


# -- in the interpreter ------------------------------------------------------------------------------------------------


def _become_a_program(channel: socket.socket, filters: list[Any]) -> tuple[Any, dict[str, Any]]:
    """Fork for each request. Return, in a child, the code of its program, and where it is executed."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, 1, 5)
        if not message:
            sys.exit()  # the tests have ended
        if not os.fork():
            status = descriptors[-1]
            pid = os.fork()
            if not pid:
                channel.close()
                os.close(status)
                warnings.filters[:] = filters  # type: ignore[index]
                return _begin(*descriptors[:-1])
            _report(pid, descriptors, status)
        for descriptor in descriptors:
            os.close(descriptor)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _report(pid: int, descriptors: list[int], status: int) -> None:
    """Say which process it is, and, after its end, how it ended."""
    for descriptor in descriptors[:-1]:
        os.close(descriptor)
    os.write(status, b"%d\n" % pid)
    _, ended = os.waitpid(pid, 0)
    os.write(status, b"%d" % os.waitstatus_to_exitcode(ended))
    os._exit(0)


def _begin(file: int, *standard: int) -> tuple[Any, dict[str, Any]]:
    """Have the surroundings of a program that has just been started."""
    with open(file) as text:
        text.seek(0)
        request = json.load(text)
    os.setsid()
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    faulthandler.enable()
    arguments = request["arguments"]
    if arguments[0] == "-W":
        sys.warnoptions.append(arguments[1])
        warnings.simplefilter(arguments[1])
        arguments = arguments[2:]
    return _main_module(*arguments)


def _main_module(kind: str, *arguments: str) -> tuple[Any, dict[str, Any]]:
    """What Python makes of its command line."""
    folders = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.path[1:1] = [folder for folder in folders if folder not in sys.path]
    names: dict[str, Any] = {"__doc__": None, "__spec__": None, "__package__": None}
    what, *rest = (kind, *arguments) if kind not in ("-c", "-m") else arguments
    if kind == "-c":
        sys.path[0], sys.argv[:] = "", ["-c", *rest]
        return _alone(compile(what, "<string>", "exec"), names)
    if kind == "-m":
        sys.path[0] = os.getcwd()
        spec = importlib.util.find_spec(what)
        assert spec is not None
        assert spec.origin is not None
        sys.argv[:] = [spec.origin, *rest]
        code = spec.loader.get_code(what)  # type: ignore[union-attr]
        return _alone(code, {**names, "__spec__": spec, "__package__": spec.parent, "__file__": spec.origin})
    sys.path[0], sys.argv[:] = os.path.dirname(what), [what, *rest]
    return _alone(compile(Path(what).read_bytes(), what, "exec"), {**names, "__file__": what})


def _alone(code: Any, names: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Nothing of this file is left in ``__main__``."""
    namespace = vars(sys.modules["__main__"])
    for name in {*namespace} - {"__name__", "__builtins__"}:
        del namespace[name]
    namespace.update(names)
    return code, namespace


if __name__ == "__main__":
    _filters = list(warnings.filters)
    warnings.simplefilter("ignore")
    for _name in ("torch.distributed.checkpoint", "torch._dynamo"):
        importlib.import_module(_name)
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the tests, which end this
    exec(*_become_a_program(socket.socket(fileno=int(sys.argv[1])), _filters))
