"""This process's share of what the settings say of a node: data workers on one machine load for the same model.

The throughput to aim for is divided by the data workers of the node: those of this process's loader, times the ranks of
the node. Connections are divided only from the ninth worker on: a batch of small objects takes as many round trips as
it is times larger than the connections, however many workers there are (with 48 each, four workers were a quarter
slower on batches of 64). Memory is not: what one stream needs does not depend on others.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from s3torchconnector._config import S3ClientConfig

_WORKERS_WITH_ALL = 8  # that have ``max_connections`` each
_FEWEST_CONNECTIONS = 32


def _none() -> int:
    return 0


_count_workers: Callable[[], int] = _none


def count_workers_by(count: Callable[[], int]) -> None:
    """``count`` tells how many data workers the loader has that this process is one of; 0 where it is none."""
    global _count_workers
    _count_workers = count


def share_of_node(config: S3ClientConfig) -> S3ClientConfig:
    """The settings for this process: a share of them where it is a data worker, or else as they are."""
    sharers = _count_workers() * _ranks_of_node()
    if sharers <= 1:
        return config
    most = config.max_connections
    return replace(
        config,
        throughput_target_gbps=config.throughput_target_gbps / sharers,
        max_connections=min(most, max(_FEWEST_CONNECTIONS, most * _WORKERS_WITH_ALL // sharers)),
    )


def _ranks_of_node() -> int:
    """How many training processes torchrun, or who sets its variable, has started on this machine."""
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, int(ranks)) if ranks.isdecimal() else 1
