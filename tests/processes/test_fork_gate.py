"""Threads that begin or end hold a lock of OpenSSL for a moment: no fork may come then."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from s3torchconnector import _fork_gate
from s3torchconnector._threads import start_thread
from tests.servers.processes import run

# The thread has ended in Python, and not yet in the system: it does so a moment after a thread wants to fork.
_PROGRAM = """
import os, threading
from s3torchconnector import _fork_gate

gone = []

def end():
    _fork_gate.end_thread()
    while not _fork_gate._forking:
        pass
    threading.Event().wait(0.3)
    gone.append(True)

thread = threading.Thread(target=end)
thread.start()
while not _fork_gate._ending:
    pass
pid = os.fork()
if not pid:
    os._exit(0 if gone and not _fork_gate._ending else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_a_fork_waits_until_a_thread_is_gone() -> None:
    done = run([sys.executable, "-c", _PROGRAM], 60, env=os.environ)
    assert (done.stdout.strip(), done.stderr) == ("0", "")


@contextmanager
def forking() -> Iterator[None]:
    """Another thread forks in this block."""
    end, begun = threading.Event(), threading.Event()

    def fork() -> None:
        _fork_gate._before_fork()
        begun.set()
        end.wait()
        _fork_gate._after_fork_in_parent()

    thread = threading.Thread(target=fork)
    thread.start()
    begun.wait()
    try:
        yield
    finally:
        end.set()
        thread.join()


def test_no_thread_begins_while_another_forks() -> None:
    begun = threading.Event()
    with forking():
        start_thread("test", begun.set)
        assert not begun.wait(0.2)
    assert begun.wait(10)


def test_no_thread_ends_while_another_forks() -> None:
    numbers: list[int] = []
    begun, go_on = threading.Event(), threading.Event()

    def work() -> None:
        numbers.append(threading.get_native_id())
        begun.set()
        go_on.wait()

    start_thread("test", work)
    begun.wait()
    with forking():
        go_on.set()
        threading.Event().wait(0.2)
        assert os.path.exists(f"/proc/self/task/{numbers[0]}")


def test_threads_that_are_gone_are_forgotten() -> None:
    ended = threading.Semaphore(0)
    for _ in range(2 * _fork_gate._MANY):
        start_thread("test", ended.release)
        ended.acquire()
    assert len(_fork_gate._ending) <= _fork_gate._MANY + 1
    with forking():
        assert not _fork_gate._ending
