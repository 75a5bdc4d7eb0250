"""What the clients of a process share if they are configured alike: connections, threads and the byte budget.

They share everything that does not depend on the client. Each request is signed separately, so a connection serves
clients with different credentials and customer keys. Settings that affect how a connection is opened are part of the
``Key``, or of the connection's address.

A client calls ``share`` at its first use, and ``leave`` when it is closed; after the last one, everything is closed.
Nothing of it crosses a fork: a child forgets its parent's.
"""

import contextlib
import os
import threading
import weakref
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._late_imports import no_fork
from s3torchconnector._platform import at_fork
from s3torchconnector._transfer.engine._budget import ByteBudget
from s3torchconnector._transfer.engine._workers import Workers
from s3torchconnector._wire import ConnectionPool, process_metrics

if TYPE_CHECKING:
    from s3torchconnector._metrics import Metrics

_TRUST = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "AWS_CONFIG_FILE", "AWS_PROFILE", "SSL_CERT_FILE", "SSL_CERT_DIR")


class Key(NamedTuple):
    """Clients with equal keys share. Equal means: the same server, the same settings except those of single requests,
    and the same trusted certificates."""

    region: str
    endpoint: str | None
    config: S3ClientConfig
    trust: tuple[object, ...]


class Shared:
    """Connections, threads and the byte budget."""

    def __init__(self, config: S3ClientConfig) -> None:
        self._most = config.max_connections
        self.budget = ByteBudget(config.memory_budget)
        wake = self.budget.wake
        self.workers = Workers(config.max_connections, wake)
        self.pool = ConnectionPool(config, wake, self.workers.submit, self.workers.ensure_one)
        self.workers.close_old_of(self.pool)
        self._users: set[object] = set()

    def __repr__(self) -> str:
        return f"<Shared [{len(self._users)} clients | {self.budget!r} | {self.workers!r} | {self.pool!r}]>"

    def add(self, user: object) -> None:
        """``user`` shares this from now on. Under the module's lock."""
        self._users.add(user)
        self._set_limit()

    def remove(self, user: object) -> bool:
        """``user`` has left; whether it was the last one. Under the module's lock."""
        self._users.discard(user)
        self._set_limit()
        return not self._users

    def _set_limit(self) -> None:
        # One more for each further client: its poll loop keeps a thread as long as there are small objects to fetch.
        self.workers.limit = self._most + max(0, len(self._users) - 1)


_lock = threading.Lock()
_shared: dict[Key, Shared] = {}  # in use
_all: weakref.WeakSet[Shared] = weakref.WeakSet()  # also those that are being closed


def share(region: str, endpoint: str | None, config: S3ClientConfig, user: object) -> Shared:
    """What ``user``, a client with these settings, shares with other clients from now on."""
    of_connections = replace(
        config, credentials=None, write_options=None, customer_key=None, expected_bucket_owner=None, progress=None
    )
    key = Key(region, endpoint, of_connections, _trust())
    with _lock:
        shared = _shared.get(key)
        if shared is None:
            shared = _shared[key] = Shared(key.config)
            _all.add(shared)
        shared.add(user)
    return shared


def leave(shared: Shared, user: object) -> None:
    """``user`` is closed, perhaps for the second time. If it was the last, end threads and close connections."""
    with _lock:
        if not shared.remove(user):
            return
        for key in [key for key, each in _shared.items() if each is shared]:
            del _shared[key]
    shared.workers.close()
    shared.pool.close()


def add_gauges(metrics: "Metrics", of: Iterable[Shared]) -> "Metrics":
    """``metrics`` with the connections and the memory that these have now."""
    with no_fork:
        from s3torchconnector._metrics import Metrics

    # Without locks, which a stalled thread might hold: the figures may be of slightly different moments.
    for shared in of:
        metrics += Metrics(
            connections_in_use=shared.pool.in_use,
            connections_idle=shared.pool.idle,
            memory_used=shared.budget.taken,
            memory_limit=shared.budget.limit,
        )
    return metrics


def of_process(*, children: bool) -> "Metrics":
    """What all clients of this process have done, and if wanted those of the processes that it has started."""
    with _lock:
        used = list(_all)
    return add_gauges(process_metrics(children=children), used)


def _trust() -> tuple[object, ...]:
    """Which certificates a connection trusts that is opened now."""
    found: list[object] = []
    for name in _TRUST:
        path = os.environ.get(name)
        found.append(path)
        if path:
            with contextlib.suppress(OSError):  # the error is raised when a connection is opened
                status = os.stat(path)
                found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def _leave_all_to_parent() -> None:
    global _lock, _shared, _all
    inherited = list(_all)
    _lock, _shared, _all = threading.Lock(), {}, weakref.WeakSet()
    for shared in inherited:
        shared.pool.forget()


at_fork(after_in_child=_leave_all_to_parent)
