"""How long a request may take, and who may call it off: what everything that waits on its way is given.

Nothing here keeps time on a thread of its own. Each place that blocks asks how much time is left and waits no longer:
a socket by its timeout (``_connection``), a queue by its event (``_line``), a pause by the token's.
"""

from __future__ import annotations

import select
import time
from typing import NamedTuple

from s3torchconnector._errors import S3TimeoutError
from s3torchconnector._wire._cancel import CancelToken


class Deadline(NamedTuple):
    """Until when to wait.

    Attributes:
        token: cancels the wait; what it excuses is not counted.
        until: the end, by ``time.perf_counter``.
        wait: whether to wait in line for a connection, while all allowed ones are in use.
        connect: whether to open one, if none is idle, however long that takes.
    """

    token: CancelToken
    until: float
    wait: bool = True
    connect: bool = True

    def left(self) -> float:
        """Seconds until the end; negative after it."""
        return self.until + self.token.excused - time.perf_counter()

    def check(self) -> None:
        """Raise once there is no more reason to go on.

        Raises:
            CancelledByCaller: the token was cancelled.
            S3TimeoutError: the time is over.
        """
        self.token.check()
        if self.left() <= 0:
            raise S3TimeoutError("the time for the operation is over")


def poll_until(end: float, poll: select.poll) -> list[tuple[int, int]]:
    """What is ready by ``end``, at once if that is over: ``poll`` takes a negative time for "for ever"."""
    return poll.poll(max(0.0, end - time.perf_counter()) * 1000)
