"""How long a request may take, and the token that cancels it: passed to everything that may wait on its way.

No thread keeps time. Each place that blocks asks how much time is left and waits no longer: a socket by its timeout
(``_timed_socket``), a queue by its latch (``_fair_queue``), a pause by the token.
"""

import time
from typing import NamedTuple

from s3torchconnector._errors import S3TimeoutError
from s3torchconnector._wire._cancel import CancelToken
from s3torchconnector._wire._polling import Poll


class Deadline(NamedTuple):
    """When to stop waiting.

    Attributes:
        token: cancels the wait; the time for which its requests were paused is not counted.
        until: the end, by ``time.perf_counter``.
        wait: whether to wait for a connection while as many are in use as may be.
        connect: whether to open a connection if none is idle, however long that takes.
    """

    token: CancelToken
    until: float
    wait: bool = True
    connect: bool = True

    def left(self) -> float:
        """Seconds until the end; negative after it."""
        return self.until + self.token.paused - time.perf_counter()

    def check(self) -> None:
        """Raise if there is no reason to go on.

        Raises:
            CancelledByCaller: the token was cancelled.
            S3TimeoutError: time is up.
        """
        self.token.check()
        if self.left() <= 0:
            raise S3TimeoutError("the time for the operation is up")


def poll_until(end: float, poll: Poll) -> list[tuple[int, int]]:
    """The descriptors that are ready by ``end``; returns at once after that, since ``poll`` takes a negative time as
    "forever".
    """
    return poll.poll(max(0.0, end - time.perf_counter()) * 1000)
