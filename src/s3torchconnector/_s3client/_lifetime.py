"""How what clients have open ends: when a client is dropped, when the interpreter exits, and in a forked child."""

from __future__ import annotations

import atexit
import contextlib
import os
import weakref
from functools import partial
from typing import Protocol

from s3torchconnector._platform import at_fork
from s3torchconnector._threads import start_thread
from s3torchconnector._transfer import Runtime, leave_to_collector


class _Client(Protocol):
    """What a client does about its connections."""

    def _close_idle(self) -> None: ...
    def _leave_to_parent(self) -> None: ...


_clients: weakref.WeakSet[_Client] = weakref.WeakSet()


def watch(client: _Client) -> None:
    """Have the client's idle connections closed at exit, and its parent's dropped in a forked child."""
    _clients.add(client)


def close_when_dropped(client: _Client, runtime: Runtime) -> None:
    """Have ``runtime`` closed when the client is dropped in this process. At exit, ``watch`` does the work."""
    weakref.finalize(client, _close_in_same_process, runtime, os.getpid()).atexit = False


def _close_in_same_process(runtime: Runtime, pid: int) -> None:
    """Close on another thread. A finaliser may run while a lock is held that the runtime's threads wait for."""
    if os.getpid() == pid:
        # The collector starts a thread that waits for transfers under way, since more may be left to the collector.
        leave_to_collector(partial(_close_on_a_thread, runtime))


def _close_on_a_thread(runtime: Runtime) -> None:
    # If no thread can be had (CPython 3.12 starts none while the interpreter exits), idle threads end by themselves.
    with contextlib.suppress(RuntimeError):
        start_thread("close", runtime.close)


def _close_idle_at_exit() -> None:
    """Do what finalisers no longer do at exit. Transfers may go on, and close their connections when they end."""
    for client in list(_clients):
        client._close_idle()


def _leave_all_to_parent() -> None:
    for client in list(_clients):
        client._leave_to_parent()


atexit.register(_close_idle_at_exit)
at_fork(after_in_child=_leave_all_to_parent)
