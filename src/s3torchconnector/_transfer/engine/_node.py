"""This process's share of the settings that are meant for a node: its data workers load for the same model.

The target throughput is divided by the number of data workers of the node: the workers of this process's loader times
the ranks of the node. Connections are divided only from the ninth worker on: with fewer connections, a batch of small
objects takes more round trips, for any number of workers (with 48 each, four workers were a quarter slower on batches
of 64). Memory is not divided: the needs of one stream do not depend on others.
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
    """Register ``count``, which returns the number of data workers of this process's loader; 0 if the process is not a
    data worker.
    """
    global _count_workers
    _count_workers = count


def share_of_node(config: S3ClientConfig) -> S3ClientConfig:
    """The settings for this process: a share of them if it is a data worker, otherwise unchanged."""
    sharers = _count_workers() * ranks_of_node()
    if sharers <= 1:
        return config
    return replace(
        config,
        throughput_target_gbps=config.throughput_target_gbps / sharers,
        max_connections=connections_of_worker(config.max_connections, sharers),
    )


def connections_of_worker(most: int, sharers: int) -> int:
    """How many connections each of so many data workers of a node may have, if a process may have ``most``."""
    return min(most, max(_FEWEST_CONNECTIONS, most * _WORKERS_WITH_ALL // sharers)) if sharers > 1 else most


def ranks_of_node() -> int:
    """The number of training processes that torchrun, or another launcher that sets its variable, has started on this
    machine.
    """
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, int(ranks)) if ranks.isdecimal() else 1
