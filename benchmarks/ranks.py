"""Work of a group of gloo ranks: this process is rank 0, whose meter counts; the others are its children."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

from benchmarks.job import Job
from benchmarks.meter import Meter

Work = Callable[[Job, Meter], int]  # enters the meter once, when all ranks are ready: see `ready`


def together(work: Work, job: Job, meter: Meter) -> int:
    """Have `job.ranks` processes do `work` at the same time. Returns what all of them have done together.

    The children live until after the measurement, so that their processor time is counted; memory is rank 0's.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        others = [context.Process(target=_be_other, args=(rank, store, work, job)) for rank in range(1, job.ranks)]
        for other in others:
            other.start()
        amount = be_rank(0, store, work, job, meter)
        for other in others:
            other.join()
    if any(other.exitcode for other in others):
        raise ChildProcessError(f"ranks ended with {[other.exitcode for other in others]}")
    return amount


def _be_other(rank: int, store: Path, work: Work, job: Job) -> None:
    be_rank(rank, store, work, job)
    # With either connector, one process in some tens aborts while it is taken down ("terminate called without an active
    # exception"): a thread of gloo's. Everything that was to be measured is over.
    os._exit(0)


def be_rank(rank: int, store: Path, work: Work, job: Job, meter: Meter | None = None) -> int:
    """Join the group, work, and stay until everybody has."""
    import torch
    import torch.distributed as dist

    warnings.simplefilter("ignore")
    if job.ranks > 1:
        torch.set_num_threads(1)  # as torchrun does
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=job.ranks)
    try:
        amount = torch.tensor(work(job, meter or Meter()))
        dist.all_reduce(amount)
        dist.barrier()  # gloo's threads release tensors meanwhile: a process that ends before may abort
        return int(amount)
    finally:
        dist.destroy_process_group()


def ready() -> None:
    """Return when all ranks have arrived."""
    import torch.distributed as dist

    dist.barrier()
