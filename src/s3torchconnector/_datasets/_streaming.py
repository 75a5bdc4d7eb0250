"""The arguments of a streaming dataset: what they may be, and what stands for those that were left out."""

from __future__ import annotations

import logging
from dataclasses import replace

from s3torchconnector._datasets._deal import Tail
from s3torchconnector._datasets._passes import Dealing
from s3torchconnector._errors import S3ConfigurationError
from s3torchconnector._ranks import Rank

_log = logging.getLogger(__name__)
_MANY = 1_000_000  # keys that all ranks together list for one dataset, before it is worth a warning


def check_numbers(
    batch_size: int, seed: int, num_replicas: int | None, rank: int | None, look_ahead: int | None, threads: int = 0
) -> None:
    """
    Raises:
        S3ConfigurationError: one of them cannot be used.
    """
    if type(batch_size) is not int or batch_size < 1:
        raise S3ConfigurationError(f"batch_size must be a whole number of at least 1: batch_size={batch_size!r}")
    if type(seed) is not int or not 0 <= seed < 2**64:
        raise S3ConfigurationError(f"seed must be a whole number from 0 to 2**64 - 1: seed={seed!r}")
    if look_ahead is not None and look_ahead < 0:
        raise S3ConfigurationError(f"look_ahead must not be negative: look_ahead={look_ahead}")
    if type(threads) is not int or threads < 0:
        raise S3ConfigurationError(
            f"transform_threads must be a whole number of at least 0: transform_threads={threads!r}"
        )
    if (num_replicas is None) != (rank is None):
        raise S3ConfigurationError(
            f"num_replicas and rank go together: give both or neither (num_replicas={num_replicas!r}, rank={rank!r})"
        )
    if num_replicas is not None and rank is not None and not 0 <= rank < num_replicas:
        raise S3ConfigurationError(f"rank must be from 0 to num_replicas - 1: rank={rank}, num_replicas={num_replicas}")


def dealing(
    batch_size: int,
    drop_last: bool,
    even_batches: bool,
    balance: str | None,
    num_replicas: int | None,
    rank: int | None,
) -> Dealing:
    """How samples are dealt to ranks.

    Raises:
        S3ConfigurationError: ``balance`` cannot be used.
    """
    if balance not in (None, "bytes"):
        raise S3ConfigurationError(f"balance must be None or 'bytes': balance={balance!r}")
    tail: Tail = "drop" if drop_last else "even" if even_batches else "uneven"
    given = None if num_replicas is None or rank is None else Rank(rank, num_replicas)
    return Dealing(batch_size, tail, balance is not None, given)


def on_nodes(dealing: Dealing, canonical_nodes: int | None) -> Dealing:
    """The same, so that each node gets the samples of some canonical nodes.

    Raises:
        S3ConfigurationError: ``canonical_nodes`` cannot be used.
    """
    if canonical_nodes is None:
        return dealing
    if type(canonical_nodes) is not int or canonical_nodes < 1:
        raise S3ConfigurationError(
            f"canonical_nodes must be a whole number from 1 on: canonical_nodes={canonical_nodes!r}"
        )
    if dealing.by_size:
        raise S3ConfigurationError(
            "balance='bytes' deals samples to all ranks, and canonical_nodes keeps them on their nodes: leave one out"
        )
    return replace(dealing, nodes=canonical_nodes)


def most_errors(on_error: str, max_errors: int) -> int | None:
    """How many samples may be replaced; None if errors are raised.

    Raises:
        S3ConfigurationError: one of them cannot be used.
    """
    if on_error not in ("raise", "replace"):
        raise S3ConfigurationError(f"on_error must be 'raise' or 'replace': on_error={on_error!r}")
    if type(max_errors) is not int or max_errors < 0:
        raise S3ConfigurationError(f"max_errors must be a whole number of at least 0: max_errors={max_errors!r}")
    return max_errors if on_error == "replace" else None


def warn_of_listing(keys: int, ranks: int) -> None:
    """Log that each rank has listed the prefix, if it was large."""
    if keys * ranks > _MANY:
        _log.warning(
            "a prefix of %d objects was listed by each of %d ranks: S3Manifest.shared lists it once for all of them, "
            "and for later runs",
            keys,
            ranks,
        )
