"""Metrics at run time: the requests of this process, and of the job, and their outcome.

``S3Client.metrics()`` has those of one client. They are always counted, which takes a request about a microsecond.

    from s3torchconnector import metrics

    before = metrics.process()
    ...
    print(metrics.process() - before)
"""

from __future__ import annotations

from s3torchconnector import _transfer
from s3torchconnector._late_imports import no_fork
from s3torchconnector._metrics import Histogram, Metrics, Prices
from s3torchconnector.metrics._watch import Watch, watch

__all__ = ["Histogram", "Metrics", "Prices", "Watch", "all_ranks", "process", "watch"]


def process(*, children: bool = True) -> Metrics:
    """What all clients of this process have done, closed ones too, and those of the processes that it has started.

    A DataLoader's workers are such processes, whichever dataset they read and however they were started; also ranks
    that were started by ``torch.multiprocessing``. What they have done is known at once, and stays when they end. A
    spawned process counts from when it is sent a client, or what has one. What these start in turn is not counted.

    Connections and memory are those of this process alone.

    Args:
        children: whether to count the processes that this one has started.
    """
    return _transfer.of_process(children=children)


def all_ranks(*, children: bool = True) -> Metrics:
    """``process()`` of all ranks of ``torch.distributed`` together; of this process, if there is no process group.

    All ranks must call this, at the same place, as any collective operation. All are returned the sum.
    """
    with no_fork:
        from s3torchconnector._ranks import gathered
    own, *others = gathered(process(children=children))
    for each in others:
        own += each
    return own
