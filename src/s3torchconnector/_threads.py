"""Threads that start at once, and yet have a name that debuggers, log records and ``threading.enumerate`` show.

``threading.Thread.start`` waits until the new thread runs, which may take long while others keep the processors busy.
``_thread`` does not wait, but knows no names. So a thread that it starts names itself: ``threading`` keeps an entry for
a thread that it has not started as soon as that asks for itself. Naming takes 25 us, once a thread.
"""

from __future__ import annotations

import _thread
import contextlib
import threading
from collections.abc import Callable

from s3torchconnector._fork_gate import begin_thread, end_thread

# By identifier; there is no public way to remove an entry, and before Python 3.13 nothing else does.
_active: dict[int, threading.Thread] = getattr(threading, "_active", {})


def start_thread(name: str, function: Callable[..., object], *arguments: object) -> None:
    """Have a new thread called ``s3torchconnector NAME`` call ``function``. No exit waits for it.

    Raises:
        RuntimeError: no more threads can be started.
    """
    _thread.start_new_thread(_run, (name, function, arguments))


def rename_thread(name: str) -> str:
    """Call this thread ``s3torchconnector NAME`` from now on, and return its name before; takes 0.2 us."""
    thread = threading.current_thread()
    before, thread.name = thread.name, f"s3torchconnector {name}"
    return before


def thread_names() -> dict[int, str]:
    """The names of all threads, by their identifiers. Takes no lock."""
    return {identifier: thread.name for identifier, thread in _active.copy().items()}


def _run(name: str, function: Callable[..., object], arguments: tuple[object, ...]) -> None:
    try:
        begin_thread()
        with contextlib.suppress(Exception):  # for want of memory, say: without a name it does its work as well
            rename_thread(name)
        function(*arguments)
    finally:
        _active.pop(_thread.get_ident(), None)  # one operation, which needs no lock
        end_thread()
