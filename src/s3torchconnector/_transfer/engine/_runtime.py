"""What one client has in one process: its way to S3, and its use of connections, threads and the byte budget.

A runtime is made at first use and never crosses a fork: a child lets go of its parent's and makes its own.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._transfer.engine._collector import prepare_collector
from s3torchconnector._transfer.engine._multiplexer import Multiplexer
from s3torchconnector._transfer.engine._node import share_of_node
from s3torchconnector._transfer.engine._shared import leave, share
from s3torchconnector._transfer.engine._worker_share import WorkerShare
from s3torchconnector._transfer.engine._workers import Lane
from s3torchconnector._wire import Caller

# What one connection to S3 brings at worst. On average it is 70 MB/s: 90 while bytes flow, and 25 ms of waiting before
# a part of 8 MiB; but some are slow, and a stream too many costs little. Measured, see docs/performance.md.
_BYTES_PER_SECOND_PER_STREAM = 20e6
# A server that answers within so many seconds is in the same room, if not on this machine: fewer of its connections are
# enough, and more of them only push each other's bytes out of the processors' caches.
_NEARBY = 8e-3
_BYTES_PER_SECOND_PER_STREAM_NEARBY = 80e6
_ERRANDS_NEARBY = 24  # small objects: what one process does with 5,000 of them a second
# A processor decrypts 0.8 GB/s, what a dozen connections bring; more of them cost handshakes, and wait for each other.
_ENCRYPTED_STREAMS_PER_PROCESSOR = 12


class Runtime:
    """One client in this process; connections, threads and budget are those of all that are configured alike.

    Attributes:
        config: the client's, or this process's share of what that says of the node.
    """

    def __init__(self, region: str, endpoint: str | None, config: S3ClientConfig, user_agent: str) -> None:
        with contextlib.suppress(RuntimeError):  # no thread to be had: a later one tries again
            prepare_collector()  # for the client's end
        self.config = config = share_of_node(config)
        self._shared = shared = share(region, endpoint, config, user=self)
        try:
            self.budget = shared.budget
            self.workers = WorkerShare(shared.workers, self.budget.wake)
            self.caller = Caller(region, endpoint, config, user_agent, pool=shared.pool)
        except BaseException:
            leave(shared, self)
            raise
        silence = min(config.read_timeout, config.operation_timeout)
        self.disordered_buckets: set[str] = set()  # which are listed otherwise than in the order of keys
        self.multiplexer = Multiplexer(self.workers, config.max_connections, silence, self.caller.hedging)

    @property
    def streams(self) -> int:
        """How many parts of one large object are in flight at a time."""
        typical = self.caller.hedging.typical
        is_near = typical is not None and typical < _NEARBY
        each = _BYTES_PER_SECOND_PER_STREAM_NEARBY if is_near else _BYTES_PER_SECOND_PER_STREAM
        wanted = math.ceil(self.config.bytes_per_second / each)
        if self.caller.encrypts:
            wanted = min(wanted, _ENCRYPTED_STREAMS_PER_PROCESSOR * _processors())
        return max(1, min(self.config.max_connections, max(4, wanted)))

    @property
    def requests(self) -> int:
        """How many small objects are in flight at a time: few until it is known that the server is far."""
        is_far = (self.caller.hedging.typical or 0.0) >= _NEARBY
        return self.config.max_connections if is_far else min(self.config.max_connections, _ERRANDS_NEARBY)

    def lane(self) -> Lane:
        """A share of the threads for one large object."""
        return Lane(self.workers, self.streams)

    def close(self) -> None:
        """Wait for what is under way; then, unless other clients share them, end threads and close connections."""
        self.workers.close()
        self.caller.close()
        leave(self._shared, self)

    def close_idle(self) -> None:
        """At the end of the process: close the connections that serve no request, and keep none from now on."""
        self._shared.pool.close()

    def forget(self) -> None:
        """In a forked child: let go of what is the parent's."""
        self.caller.forget()
        self.multiplexer.forget()


def _processors() -> int:
    """How many this process may use, where the system tells; it is not told of a container's quota."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


OpenRuntime = Callable[[], Runtime]
"""Gives the calling process's runtime; cheap enough to ask at every use."""
