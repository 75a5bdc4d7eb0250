"""What one client has in one process: its caller, and its use of connections, threads and the byte budget.

A runtime is made at first use and never crosses a fork: a child forgets its parent's and makes its own.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._late_imports import no_fork
from s3torchconnector._transfer.engine._collector import prepare_collector
from s3torchconnector._transfer.engine._node import share_of_node
from s3torchconnector._transfer.engine._shared import add_gauges, leave, share
from s3torchconnector._transfer.engine._worker_share import WorkerShare
from s3torchconnector._transfer.engine._workers import Lane
from s3torchconnector._wire import Caller, Figures

if TYPE_CHECKING:
    from s3torchconnector._metrics import Metrics
    from s3torchconnector._transfer.engine._multiplexer import Multiplexer
    from s3torchconnector._transfer.engine._poll_loop import MultiplexedRequest

# What one connection to S3 transfers at worst. The average is 70 MB/s: 90 MB/s while bytes flow, and 25 ms of waiting
# before 8 MiB. But some are slow, and a stream too many costs little. Measured, see docs/performance.md.
_BYTES_PER_SECOND_PER_STREAM = 20e6
# A server that responds within so many seconds is in the same room, if not on this machine: fewer connections are
# enough, and more would only push each other's bytes out of the processors' caches.
_NEARBY = 8e-3
_BYTES_PER_SECOND_PER_STREAM_NEARBY = 80e6
_REQUESTS_NEARBY = 24  # for small objects: enough for the 5,000 a second that one process can receive
# A processor decrypts 0.8 GB/s, what a dozen connections transfer; more cost handshakes, and wait for each other.
_ENCRYPTED_STREAMS_PER_PROCESSOR = 12


class Runtime:
    """One client in this process. Clients that are configured alike share connections, threads and budget.

    Attributes:
        config: the client's, or this process's share of it if it is a data worker.
        multiplexer: of small objects; None until there is one.
    """

    multiplexer: Multiplexer | None = None

    def __init__(
        self, region: str, endpoint: str | None, config: S3ClientConfig, user_agent: str, figures: Figures
    ) -> None:
        with contextlib.suppress(RuntimeError):  # no thread can be started now: a later runtime tries again
            prepare_collector()  # for the client's end
        self.config = config = share_of_node(config)
        self._shared = shared = share(region, endpoint, config, user=self)
        try:
            self.budget = shared.budget
            self.workers = WorkerShare(shared.workers, self.budget.wake)
            self.caller = Caller(region, endpoint, config, user_agent, pool=shared.pool, figures=figures)
        except BaseException:
            leave(shared, self)
            raise
        self.disordered_buckets: set[str] = set()  # whose listings are not in the order of keys

    def __repr__(self) -> str:
        return f"<Runtime [{' | '.join(map(repr, self.parts))}]>"

    @property
    def parts(self) -> list[object]:
        """What describes itself to a person who looks at a stalled job."""
        return [self.budget, self.workers, *([self.multiplexer] if self.multiplexer else []), self.caller]

    @property
    def streams(self) -> int:
        """How many requests for one large object are in flight at a time."""
        typical = self.caller.hedging.typical
        is_near = typical is not None and typical < _NEARBY
        each = _BYTES_PER_SECOND_PER_STREAM_NEARBY if is_near else _BYTES_PER_SECOND_PER_STREAM
        wanted = math.ceil(self.config._bytes_per_second / each)
        if self.caller.encrypts:
            wanted = min(wanted, _ENCRYPTED_STREAMS_PER_PROCESSOR * _processors())
        return max(1, min(self.config.max_connections, max(4, wanted)))

    @property
    def requests(self) -> int:
        """How many small objects are in flight at a time: few until the server is known to be far."""
        is_far = (self.caller.hedging.typical or 0.0) >= _NEARBY
        return self.config.max_connections if is_far else min(self.config.max_connections, _REQUESTS_NEARBY)

    def multiplex(self, request: MultiplexedRequest) -> None:
        """Have ``request`` sent and received on a thread that does so for many. See ``Multiplexer.submit``."""
        (self.multiplexer or self._new_multiplexer()).submit(request)

    def _new_multiplexer(self) -> Multiplexer:
        with no_fork:
            from s3torchconnector._transfer.engine._multiplexer import Multiplexer  # here: large objects need none

        silence = min(self.config.read_timeout, self.config.operation_timeout)
        made = Multiplexer(self.workers, self.config.max_connections, silence, self.caller.hedging)
        first: Multiplexer = self.__dict__.setdefault("multiplexer", made)  # another thread may have made one meanwhile
        return first

    def lane(self) -> Lane:
        """A share of the threads for one large object."""
        return Lane(self.workers, self.streams)

    def take_usage(self) -> tuple[int, int]:
        """How many requests have ended since this was called last, and how many were retries."""
        return self.caller.figures.take()

    def add_gauges(self, metrics: Metrics) -> Metrics:
        """``metrics`` with the connections and the memory of this client, and of those that share them."""
        return add_gauges(metrics, [self._shared])

    def close(self) -> None:
        """Wait for running work. Then end threads and close connections, unless other clients share them."""
        self.workers.close()
        self.caller.close()
        leave(self._shared, self)

    def close_idle(self) -> None:
        """At the end of the process: close connections that serve no request, and keep none idle from now on."""
        self._shared.pool.close()

    def forget(self) -> None:
        """In a forked child: forget what belongs to the parent."""
        self.caller.forget()
        if self.multiplexer is not None:
            self.multiplexer.forget()


def _processors() -> int:
    """The number of processors that this process may use, if the system reports it. This does not include a container's
    quota.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


OpenRuntime = Callable[[], Runtime]
"""Returns the calling process's runtime; cheap enough to call at every use."""
