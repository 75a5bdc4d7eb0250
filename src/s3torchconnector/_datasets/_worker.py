"""Which DataLoader worker this process is."""

from __future__ import annotations

from torch.utils.data import get_worker_info

from s3torchconnector._errors import S3ConfigurationError

MOST_WORKERS = 1023


def in_worker() -> bool:
    """Whether this process is a DataLoader's worker."""
    return get_worker_info() is not None


def this_worker() -> tuple[int, int]:
    """The number of this worker, and how many there are; (0, 1) in the main process."""
    info = get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)


def worker_slot() -> int:
    """The number of what belongs to this process in memory that the workers share: 0 in the main process.

    Raises:
        S3ConfigurationError: there are more workers than places.
    """
    info = get_worker_info()
    if info is None:
        return 0
    if info.id >= MOST_WORKERS:
        raise S3ConfigurationError(
            f"a DataLoader may have at most {MOST_WORKERS} workers: num_workers={info.num_workers}"
        )
    return info.id + 1
